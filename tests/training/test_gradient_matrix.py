"""The exact step: processes x ways to share x ways to chunk x objectives, against autograd over the whole batch."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from diptych.models.heads.captioner import Captioner
from diptych.models.heads.word_predictor import WordPredictor
from diptych.models.image_model import ImageModel
from diptych.models.vision_transformer import VisionTransformer
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.training.approaches.contrastive import ClipTask
from tests.processes import run_processes
from tests.training import gradient_matrix
from tests.training.gradient_matrix import ROWS, batch_of, cases, gradients, model_of, task_of

# Gradients of size 1e-3 to 15, summed in another order in float64: 1e-12 is the aim of the project, and leaves
# three digits. Of a gradient larger than 1 (a token's embedding is), a share of its size.
WITHIN = 1e-12


def reference(objective: str) -> dict[str, Tensor]:
    """One process, one forward pass, one call of autograd; no part of the engine."""
    model, batch = model_of(objective), batch_of(range(ROWS))
    images = task_of(objective, model).images  # type: ignore[attr-defined]
    pixels = images.normalised(images.views(batch, batch.rows)).double()
    if objective in gradient_matrix.TEXTS:
        predicted = (
            _captioned(model, pixels, batch.tokens)
            if objective == "captioning"
            else _bagged(model, pixels, batch.tokens)
        )
        predicted.backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    image = F.normalize(model.encode_image(pixels), dim=-1)
    text = F.normalize(model.encode_text(batch.tokens), dim=-1)
    pairs, scale = Pairs.whole(image, text, batch.groups), model.logit_scale.exp()
    if objective == "clip":
        total, _ = infonce(pairs, scale)
    else:
        assert model.logit_bias is not None
        total, _ = sigmoid(pairs, scale, model.logit_bias)
    (total / ROWS).backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def _captioned(model: ImageModel, pixels: Tensor, tokens: Tensor) -> Tensor:
    """Every text on its own, in both directions, without padding, by the library's cross-entropy."""
    assert isinstance(model.text, Captioner)
    assert isinstance(model.visual, VisionTransformer)
    cells = model.visual.tokens(pixels) @ model.visual.proj
    total, number = torch.zeros((), dtype=torch.float64), 0
    for row, text in enumerate(tokens.long()):
        used = text[: int(text.argmax()) + 1]
        for direction, ids in (("forward", used), ("backward", used.flip(0))):
            states = model.text(cells[row : row + 1], ids[None], direction)[0, :-1]
            logits = states @ model.text.token_embedding.weight.T + model.text.output_bias
            total = total + F.cross_entropy(logits, ids[1:], reduction="sum")
        number += len(used) - 1
    return total / number


def _bagged(model: ImageModel, pixels: Tensor, tokens: Tensor) -> Tensor:
    assert isinstance(model.text, WordPredictor)
    likelihood = (model.visual(pixels) @ model.text.table.T + model.text.bias).log_softmax(dim=1)
    rows = [
        -likelihood[row, sorted(set(text[1 : int(text.argmax())].tolist()))].mean()
        for row, text in enumerate(tokens.long())
    ]
    return torch.stack(rows).mean()


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    size: int = request.param
    if size == 1:
        return {
            f"{case.name}/{name}": value
            for case in cases()
            if case.way == "ddp"
            for name, value in gradients(case).items()
        }
    out = tmp_path_factory.mktemp("matrix") / f"{size}.safetensors"
    ended = run_processes(size, ["-m", "tests.training.gradient_matrix", str(out)])
    assert all(code == 0 for code, _, _ in ended), "\n".join(errors for _, _, errors in ended)[-6000:]
    return load_file(out)


@pytest.mark.parametrize("objective", ["clip", "siglip", "captioning", "word-prediction"])
def test_every_way_to_take_the_step_gives_the_gradient_of_the_whole_batch(
    found: dict[str, Tensor], objective: str
) -> None:
    expected = reference(objective)
    names = {key.split("/")[0] for key in found if f"-{objective}-" in key}
    assert len(names) in ((6, 12) if objective in gradient_matrix.COUPLED else (3, 6))
    for name in names:
        for parameter, gradient in expected.items():
            difference = (found[f"{name}/{parameter}"] - gradient).abs().max().item()
            difference /= max(1.0, gradient.abs().max().item())
            assert difference <= WITHIN, f"{name}: {parameter} differs by {difference:.1e}"


def test_the_matrix_would_notice_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twins: accumulation without the other chunks' rows, and a temperature summed once a chunk."""
    model, batch = model_of("clip"), batch_of(range(ROWS))
    task = task_of("clip", model)
    expected = reference("clip")
    for rows in torch.arange(ROWS).split(4):
        pairs = Pairs.whole(task.image(batch, rows), task.text(batch, rows), batch.groups[rows])
        (infonce(pairs, model.logit_scale.exp())[0] / ROWS).backward()
    summed = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert summed.keys() == expected.keys()
    naive = torch.stack([(summed[name] - gradient).norm() for name, gradient in expected.items()])
    size = torch.stack([gradient.norm() for gradient in expected.values()])
    assert (naive.norm() / size.norm()).item() > 0.1

    features = ClipTask.text
    monkeypatch.setattr(
        ClipTask,
        "text",
        lambda self, batch, rows: features(self, batch, rows) * (1 + 1e-9),
    )
    nearly = gradients(next(case for case in cases() if case.name == "ddp-clip-cached-gathered"))
    assert max((nearly[name] - expected[name]).abs().max().item() for name in expected) > WITHIN
