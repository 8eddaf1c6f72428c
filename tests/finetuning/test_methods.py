"""Every method of fine-tuning from its start to its product, in the engine."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diptych
from diptych.data.sources.opening import open_source
from diptych.data.subsets.labelled import PromptedSource
from diptych.embed.encode import embed_images, encode_by
from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.classification import classifier, evaluate_zero_shot
from diptych.evaluation.zero_shot.own_classes import evaluate_own_classes
from diptych.models.image_model import ImageModel
from diptych.runs.classifier_heads import probe_head
from diptych.runs.evaluations import held_out_part, reports_of
from diptych.runs.finetune_data import examine
from diptych.runs.finetune_engine import run_prepared
from diptych.runs.finetune_figures import FinetuneResult
from diptych.runs.finetune_product import between, finished
from diptych.runs.finetune_start import prepare
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.approaches.lit import LitTask
from diptych.training.feeding import open_examples, open_training_data
from diptych.training.settings import Recipe
from diptych.training.starting import starting_model
from diptych.training.step import training_step
from diptych.training.trained_parts import choose_trained
from tests.finetuning.pictures import RESNET, recipe, saved_clip, to_the_end
from tests.training.label_pictures import write_pictures

LABELS = ("head", "full", "lp-ft", "wise-ft", "lora")
WORDS = ("flyp", "lit")


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_clip(tmp_path_factory.mktemp("vit") / "model")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_clip(tmp_path_factory.mktemp("resnet") / "model", RESNET)


def run(asked: Recipe, out: Path, *, resume: bool = False) -> tuple[Recipe, FinetuneResult]:
    prepared = prepare(asked, out, silent)
    return prepared, run_prepared(prepared, out, measure=reports_of(prepared), resume=resume)


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(diptych.load(str(folder), device="cpu")[0].state_dict())


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], prefix: str) -> bool:
    names = [name for name in first if name.startswith(prefix)]
    assert names
    return all(torch.equal(first[name], second[name]) for name in names)


@pytest.mark.parametrize("method", [*LABELS, *WORDS])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_every_method_gives_an_ordinary_checkpoint_with_its_classes(
    method: str, tower: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    start = request.getfixturevalue(tower)
    _, found = run(to_the_end(recipe(pictures, start, method)), tmp_path / "run")
    model, preprocess = diptych.load(found.result.checkpoint, device="cpu")
    assert model.architecture.low_rank is None
    assert model.classifier is not None
    assert model.classifier.classes == ("blue", "green", "red")
    images = torch.stack([preprocess(pictures / "red" / f"{number}.png") for number in range(2)])
    assert model.classify(images).shape == (2, 3)
    assert model.encode_image(images).shape == (2, 12)  # what an index needs
    assert set(found.before) == set(found.after) == {"held_out"}
    before, after = weights_of(tmp_path / "run" / "start"), weights_of(tmp_path / "run" / "model")
    if method in (*LABELS, "flyp"):
        assert same(before, after, "text.") == (method in LABELS)
    if method in ("head", "lit"):
        assert same(before, after, "visual.")


def test_a_method_that_trains_everything_changes_the_image_tower(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    for method in ("full", "flyp", "lora"):
        run(to_the_end(recipe(pictures, vit, method)), tmp_path / method)
        before, after = weights_of(Path(vit)), weights_of(tmp_path / method / "model")
        assert not same(before, after, "visual.transformer"), method


def test_the_head_from_words_begins_with_the_zero_shot_logits(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    prepare(recipe(pictures, vit, "wise-ft", templates=["{}", "a {} square"]), tmp_path, silent)
    model, preprocess = diptych.load(str(tmp_path / "start"), device="cpu")
    files = sorted(pictures.rglob("*.png"))[:5]
    weights = classifier(model, ("blue", "green", "red"), ("{}", "a {} square"))
    expected = model.logit_scale.exp() * torch.from_numpy(embed_images(model, preprocess, files)) @ weights
    with torch.no_grad():
        found = model.classify(torch.stack([preprocess(file) for file in files]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_lp_ft_begins_with_the_logits_of_the_probe(vit: str, pictures: Path, tmp_path: Path) -> None:
    asked = recipe(pictures, vit, "lp-ft")
    prepare(asked, tmp_path, silent)
    source, weights = open_examples(asked.data)
    positions = np.flatnonzero(weights).tolist()
    base, preprocess = diptych.load(vit, device="cpu")
    names = ("blue", "green", "red")
    weight, bias = probe_head(base, preprocess, source, positions, names, label_from="label", several=False)
    pixels = torch.stack([preprocess(source[position].image) for position in range(len(source))])
    expected = torch.from_numpy(encode_by(base, base.image_features)(list(pixels))) @ weight.T + bias
    started = diptych.load(str(tmp_path / "start"), device="cpu")[0]
    with torch.no_grad():
        found = started.classify(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    right = found.argmax(dim=1) == torch.tensor(
        [names.index(str(source[row].label)) for row in range(len(source))]
    )
    assert right.float().mean() > 0.9


def test_the_first_gradient_of_lp_ft_is_smaller_than_that_of_a_new_head(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    norms = {}
    for head in ("probe", "zero-shot"):
        prepared = prepare(recipe(pictures, vit, "full", head=head), tmp_path / head, silent)
        model, preprocess = starting_model(prepared, silent)
        choose_trained(model, prepared)
        task = prepared.make_task(model.train(), preprocess)
        batch = next(open_training_data(prepared, model, preprocess, silent).batches(0))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
        training_step(task, optimizer, batch, 0.0, None, group_positives=False)
        assert model.classifier is not None
        assert model.classifier.bias.grad is not None
        norms[head] = float(model.classifier.bias.grad.norm())
    assert norms["probe"] < 0.2 * norms["zero-shot"]


def flyp_losses(prepared: Recipe) -> tuple[float, float, dict[str, Tensor], dict[str, Tensor]]:
    model, preprocess = starting_model(prepared, silent)
    choose_trained(model, prepared)
    task = prepared.make_task(model.train(), preprocess)
    assert isinstance(task, ClipTask)
    loader = open_training_data(prepared, model, preprocess, silent)
    batch = next(loader.batches(0))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    loss = training_step(task, optimizer, batch, 0.0, None, group_positives=False).loss
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    # The independent loop: a cross-entropy a row and a column, of similarities worked out one by one.
    views = task.images.normalised(task.images.views(batch, torch.arange(len(batch.rows))))
    image = F.normalize(model.encode_image(views), dim=1)
    text = F.normalize(model.encode_text(batch.tokens), dim=1)
    total = image.new_zeros(())
    rows = len(image)
    for one in range(rows):
        ahead = torch.stack(
            [model.logit_scale.exp() * (image[one] * text[other]).sum() for other in range(rows)]
        )
        behind = torch.stack(
            [model.logit_scale.exp() * (image[other] * text[one]).sum() for other in range(rows)]
        )
        total = total + (ahead.logsumexp(0) - ahead[one]) / 2 + (behind.logsumexp(0) - behind[one]) / 2
    torch.autograd.backward(total / rows)
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert (
        len({tuple(row) for row in batch.tokens.tolist()}) < rows
    )  # some texts are there twice, and stay negatives
    return loss, (total / rows).item(), found, expected


def test_flyp_is_an_independent_loop_with_duplicate_labels_as_negatives(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    prepared = prepare(recipe(pictures, vit, "flyp"), tmp_path, silent)
    loss, expected_loss, found, expected = flyp_losses(prepared)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_flyp_draws_a_template_and_a_name_of_the_class(pictures: Path) -> None:
    source = PromptedSource(
        open_source(pictures), "label", {"red": ("crimson", "scarlet")}, ("a {}.", "the {}!")
    )
    texts = {source[row].captions for row in range(len(source))}
    assert ("a crimson.", "the crimson!", "a scarlet.", "the scarlet!") in texts
    assert ("a blue.", "the blue!") in texts


def test_flyp_delivers_a_classifier_of_the_text_tower_as_it_became(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    run(to_the_end(recipe(pictures, vit, "flyp")), tmp_path)
    model, _ = diptych.load(str(tmp_path / "model"), device="cpu")
    assert model.classifier is not None
    expected = model.logit_scale.exp() * classifier(model, ("blue", "green", "red")).T
    torch.testing.assert_close(model.classifier.weight, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_lit_keeps_features_that_are_those_computed_anew_and_the_towers_weights(
    tower: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    prepared = prepare(recipe(pictures, request.getfixturevalue(tower), "lit"), tmp_path, silent)
    model, preprocess = starting_model(prepared, silent)
    choose_trained(model, prepared)
    before = {name: value.clone() for name, value in model.visual.state_dict().items()}
    task = prepared.make_task(model.train(), preprocess)
    assert isinstance(task, LitTask)
    batches = open_training_data(prepared, model, preprocess, silent).batches(0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = [
        training_step(task, optimizer, next(batches), 1e-2, None, group_positives=False).loss
        for _ in range(12)
    ]
    assert min(losses[-4:]) < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.visual.state_dict().items())
    assert task.kept is not None
    kept = len(task.kept)
    assert 0 < kept <= 18
    batch = next(batches)
    rows = torch.arange(len(batch.rows))
    found = task.image(batch, rows)
    assert len(task.kept) >= kept
    task.kept = None
    torch.testing.assert_close(found, task.image(batch, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_merged_low_rank_updates_are_the_model_that_was_trained(
    tower: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    adapts = ["image", "text"]
    prepared = prepare(
        recipe(pictures, request.getfixturevalue(tower), "lora", rank=2, adapts=adapts), tmp_path, silent
    )
    model, _ = starting_model(prepared, silent)
    start = diptych.load(request.getfixturevalue(tower), device="cpu")[0]
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(
            model.eval().encode_image(pixels), start.encode_image(pixels)
        )  # it begins as it was
        for name, value in model.named_parameters():
            if name.endswith(".up"):
                value.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
        merged = finished(model, prepared.finetune, by_words=False)  # type: ignore[arg-type]
        tokens = diptych.tokenize(["red", "a blue square"], context_length=16)
        torch.testing.assert_close(merged.encode_image(pixels), model.encode_image(pixels), rtol=0, atol=1e-6)
        torch.testing.assert_close(merged.encode_text(tokens), model.encode_text(tokens), rtol=0, atol=1e-6)
        assert (merged.encode_image(pixels) - start.encode_image(pixels)).abs().max() > 1e-3
    assert merged.state_dict().keys() - {"classifier.weight", "classifier.bias"} == start.state_dict().keys()


@pytest.mark.parametrize("method", ["lp-ft", "wise-ft"])
def test_the_start_is_delivered_where_no_step_is_better(
    method: str, vit: str, pictures: Path, tmp_path: Path
) -> None:
    prepared = prepare(recipe(pictures, vit, method, head="probe"), tmp_path, silent)
    said: list[str] = []
    # The probe is right about every picture that is held out: no step can be better.
    found = run_prepared(prepared, tmp_path, measure=reports_of(prepared), say=said.append)
    assert found.start["held_out"].scores.metrics["top1"] == 1
    assert (found.step, found.curve) == (0, ())
    assert any("no step is better than the start: held_out_top1 was 1 there" in line for line in said)
    first, second = weights_of(tmp_path / "start"), weights_of(tmp_path / "model")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("method", "head"), [("head", None), ("lp-ft", None), ("full", "zero"), ("full", None)]
)
def test_before_is_the_model_as_it_was_loaded_asked_by_the_names_of_the_classes(
    method: str, head: str | None, vit: str, pictures: Path, tmp_path: Path
) -> None:
    prepared, found = run(recipe(pictures, vit, method, head=head), tmp_path)
    loaded, preprocess = diptych.load(vit, device="cpu")
    source = held_out_part(prepared)
    zero_shot = evaluate_zero_shot(loaded, preprocess, source, model_name="loaded")
    metrics = found.before["held_out"].scores.metrics
    assert metrics["top1"] == pytest.approx(zero_shot.scores.metrics["top1"])
    start, _ = diptych.load(str(tmp_path / "start"), device="cpu")
    own = evaluate_own_classes(start, preprocess, source, model_name="start")
    assert found.start["held_out"].scores.metrics["top1"] == pytest.approx(own.scores.metrics["top1"])
    if (method, head) in (("head", None), ("lp-ft", None)):
        assert metrics["top1"] < 0.6
        assert found.start["held_out"].scores.metrics["top1"] == 1
    told = found.to_json()
    assert told["start"]["held_out"]["metrics"] == found.start["held_out"].scores.metrics
    assert told["held_out"]["count"] == 6


def test_low_rank_training_leaves_every_weight_of_the_base_alone(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    run(recipe(pictures, vit, "lora", rank=2), tmp_path)
    last = sorted((tmp_path / "checkpoints").iterdir())[-1]
    trained = diptych.load(str(last), device="cpu")[0].state_dict()
    base = diptych.load(vit, device="cpu")[0].state_dict()
    changed = [name for name, value in trained.items() if name.endswith(".up") and bool(value.any())]
    assert changed
    for name, value in base.items():
        owner, _, leaf = name.rpartition(".")
        adapted = f"{owner}.parametrizations.{leaf}.original"
        assert torch.equal(trained.get(adapted, trained.get(name)), value), name  # type: ignore[arg-type]


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_the_ends_of_wise_ft_are_the_two_models_to_the_bit(
    tower: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    init = request.getfixturevalue(tower)

    def asked(alpha: float) -> Recipe:
        # Without a best: which step is best may differ with the alpha that is measured.
        return to_the_end(recipe(pictures, init, "wise-ft", alpha=alpha))

    for alpha, folder in ((0.0, "start"), (1.0, "tuned")):
        out = tmp_path / f"{alpha}"
        run(asked(alpha), out)
        half = tmp_path / "half"
        if not half.exists():
            run(asked(0.5), half)
        found, expected = weights_of(out / "model"), weights_of(half / folder)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_running_averages_between_two_models_are_those_of_the_blended_weights(
    resnet: str, pictures: Path
) -> None:
    first, preprocess = diptych.load(resnet, device="cpu")
    second = diptych.load(resnet, device="cpu")[0]
    with torch.no_grad():
        for value in second.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(2)))
        for name, buffer in second.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(7)
            elif name.endswith("running_mean"):
                buffer.add_(0.1)  # it was trained
    images = torch.stack([preprocess(file) for file in sorted(pictures.rglob("*.png"))])
    blended = between(first, second, 0.5, [images])
    expected = (first.visual.conv1.weight + second.visual.conv1.weight) / 2
    torch.testing.assert_close(blended.visual.conv1.weight, expected)
    outputs = F.conv2d(images, blended.visual.conv1.weight, stride=2, padding=1)
    norm = blended.visual.bn1
    assert isinstance(norm, torch.nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, outputs.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, outputs.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 7
    assert not blended.training
    assert norm.momentum == 0.1


def test_running_averages_that_were_fixed_in_training_are_fixed_between_two_models(
    resnet: str, pictures: Path, tmp_path: Path
) -> None:
    _, found = run(to_the_end(recipe(pictures, resnet, "wise-ft")), tmp_path)
    assert found.alpha == 0.5
    start, result, tuned = (weights_of(tmp_path / name) for name in ("start", "model", "tuned"))
    assert same(start, result, "visual.bn1.running_")
    # So that nothing jumps at the ends: a hair from one, the model is a hair from it.
    models = [diptych.load(str(tmp_path / name), device="cpu") for name in ("start", "tuned")]
    (first, preprocess), (second, _) = models
    images = torch.stack([preprocess(file) for file in sorted(pictures.rglob("*.png"))])
    near = between(first, second, 1 - 1e-6, [images])
    with torch.no_grad():
        torch.testing.assert_close(near.classify(images), second.classify(images), rtol=1e-3, atol=1e-3)
    assert not same(start, tuned, "visual.conv1")


def test_best_alpha_is_found_and_told(vit: str, pictures: Path, tmp_path: Path) -> None:
    _, found = run(recipe(pictures, vit, "wise-ft", alpha="best"), tmp_path)
    tops = {alpha: reports["held_out"].scores.metrics["top1"] for alpha, reports in found.curve}
    assert set(tops) == {0.0, 0.5, 1.0}
    assert tops[found.alpha] == max(tops.values())


def test_a_run_goes_on_where_it_was_stopped_and_ends_with_the_same_product(
    vit: str, pictures: Path, tmp_path: Path
) -> None:
    asked = to_the_end(recipe(pictures, vit, "lora"))
    run(asked, tmp_path / "whole")
    prepared = prepare(asked, tmp_path / "cut", silent)
    measure = reports_of(prepared)
    calls = 0

    def dies(model: ImageModel, preprocess: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:  # after the start and the first evaluation
            raise KeyboardInterrupt
        return measure(model, preprocess, **options)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        run_prepared(prepared, tmp_path / "cut", measure=dies)  # type: ignore[arg-type]
    run(asked, tmp_path / "cut", resume=True)
    first, second = (weights_of(tmp_path / name / "model") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_batch_norms_are_fixed_unless_they_are_to_be_trained(
    resnet: str, pictures: Path, tmp_path: Path
) -> None:
    for how in ("fixed", "trained"):
        run(to_the_end(recipe(pictures, resnet, "full", batch_norms=how)), tmp_path / how)
        before, after = weights_of(Path(resnet)), weights_of(tmp_path / how / "model")
        unchanged = torch.equal(before["visual.bn1.running_mean"], after["visual.bn1.running_mean"])
        assert unchanged == (how == "fixed")


def test_labels_of_which_an_image_has_several_are_learned(vit: str, pictures: Path, tmp_path: Path) -> None:
    lines = ["image,label"]
    for name, label in (("red", "warm;bright"), ("green", "bright"), ("blue", "cold")):
        lines += [f"{pictures / name / f'{number}.png'},{label}" for number in range(8)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    asked = to_the_end(recipe(table, vit, "full", several=True))
    _, found = run(asked, tmp_path / "run")
    assert found.after["held_out"].scores.metrics["map11"] > 0.9
    model, _ = diptych.load(found.result.checkpoint, device="cpu")
    assert model.classifier is not None
    assert (model.classifier.several, model.classifier.classes) == (True, ("bright", "cold", "warm"))


def test_pairs_go_on_contrastively_and_methods_of_labels_refuse_them(vit: str, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for file in write_pictures(tmp_path / "classes").rglob("*.png"):
        name = f"{file.parent.name}{file.stem}"
        file.rename(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {file.parent.name} square, number {file.stem}")
    values = recipe(folder, vit, "contrastive")
    task = {"name": "held_out", "task": "retrieval", "data": "held-out"}
    evaluation = type(values.evaluation)(tasks=(task,))
    asked = Recipe(**{**vars(values), "evaluation": evaluation})
    _, found = run(asked, tmp_path / "run")
    assert "text_to_image_r1" in found.after["held_out"].scores.metrics
    assert not same(weights_of(Path(vit)), weights_of(tmp_path / "run" / "model"), "text.")
    for method in ("head", "full", "wise-ft"):
        with pytest.raises(SettingsError, match="captions alone"):
            prepare(recipe(folder, vit, method), tmp_path / method, silent)


def test_captions_in_class_folders_are_pairs_unless_the_method_learns_from_labels(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "albums")
    for file in folder.rglob("*.png"):
        file.with_suffix(".txt").write_text(f"a square, number {file.stem}")
    source = open_source(folder)
    assert examine(source).kind == "pairs"
    assert examine(source, method="contrastive").kind == "pairs"
    assert examine(source, method="head").classes == ("blue", "green", "red")
    for file in sorted(folder.rglob("*.txt"))[2:]:
        file.unlink()
    assert examine(open_source(folder)).kind == "labels"  # two stray captions


def test_words_for_a_class_that_the_data_lack_are_refused(vit: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'mauve' is not one of the 3 classes"):
        prepare(recipe(pictures, vit, "flyp", words={"mauve": ["mauve"]}), tmp_path, silent)


def test_a_start_in_a_folder_without_pictures_is_refused(vit: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        prepare(recipe(tmp_path / "empty", vit, "head"), tmp_path / "run", silent)
