"""A published beginner's guide to CLIP, statement by statement, with `import diptych as clip`.

The real ViT-B/32 is 338 MB and is not here: a randomly initialised model in the same file format takes its place,
and its SHA-256 takes the place of the published one. So everything runs but the download.
"""

import ast
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diptych
from diptych.models.architectures import PUBLISHED
from diptych.models.building import build_model
from diptych.weights.foreign import published
from diptych.weights.half_precision import to_half

# As printed. What it leaves out is added below: numpy, the two lists, the indentation.
GUIDE = """
import torch
import clip
from PIL import Image

print(clip.available_models())
# ['RN50', 'RN101', 'RN50x4', 'RN50x16', 'RN50x64', 'ViT-B/32', 'ViT-B/16', 'ViT-L/14', 'ViT-L/14@336px']

device = "cuda" if torch.cuda.is_available() else "cpu"
model, preprocess = clip.load("ViT-B/32", device=device)
image_input = torch.tensor(np.stack(images)).cuda()
text_tokens = clip.tokenize(["This is " + desc for desc in texts]).cuda()

with torch.no_grad():
image_features = model.encode_image(image_input).float()
text_features = model.encode_text(text_tokens).float()

image_features /= image_features.norm(dim=-1, keepdim=True)
text_features /= text_features.norm(dim=-1, keepdim=True)

similarity = text_features.cpu().numpy() @ image_features.cpu().numpy().T
"""
CHANGES = {
    "import clip\n": "import diptych as clip\n",
    ".cuda()": ".to(device)",
    "\nimage_features = model": "\n    image_features = model",
    "\ntext_features = model": "\n    text_features = model",
    # The lists are made between loading and stacking, since they need `preprocess`.
    "\nimage_input =": "\nimages = [preprocess(picture) for picture in pictures]\nimage_input =",
}
TEXTS = [
    "a page of text",
    "a cat",
    "a portrait",
    "a rocket",
    "a motorcycle",
    "a cup of coffee",
    "a horse",
    "coins",
]


def guide() -> str:
    source = GUIDE
    for printed, runs in CHANGES.items():
        assert printed in source
        source = source.replace(printed, runs)
    return source


@pytest.fixture
def random_vit_b_32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the format of ViT-B-32.pt, in the cache of models, under the hash that is expected there."""
    torch.manual_seed(0)
    model = to_half(build_model(PUBLISHED["ViT-B/32"]), torch.float16)
    state = {name.removeprefix("text."): tensor for name, tensor in model.state_dict().items()}
    file = tmp_path / "models" / "ViT-B-32.pt"
    file.parent.mkdir()
    torch.save(state, file)
    known = published.PublishedFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(published.FILES, "ViT-B/32", known)
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))


def pictures() -> list[Image.Image]:
    """Eight pictures of eight sizes and modes."""
    random = np.random.default_rng(0)
    sizes = [(224, 224), (300, 200), (200, 300), (640, 480), (97, 131), (1000, 250), (64, 64), (225, 223)]
    noise = [
        random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8) for width, height in sizes
    ]
    modes = ["RGB", "RGB", "L", "RGB", "RGBA", "RGB", "P", "RGB"]
    return [
        Image.fromarray(array).resize(size, Image.Resampling.BILINEAR).convert(mode)
        for array, size, mode in zip(noise, sizes, modes, strict=True)
    ]


@pytest.mark.usefixtures("random_vit_b_32")
def test_the_statements_of_the_beginners_guide_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"np": np, "pictures": pictures(), "texts": TEXTS}
    exec(compile(guide(), "beginners_guide.py", "exec"), names)

    assert ast.literal_eval(capsys.readouterr().out.strip())[:9] == [
        *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
        *("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"),
    ]
    assert names["image_input"].shape == (8, 3, 224, 224)
    assert names["text_tokens"].shape == (8, 77)
    assert names["image_features"].shape == names["text_features"].shape == (8, 512)
    similarity = names["similarity"]
    assert similarity.shape == (8, 8)
    assert similarity.dtype == np.float32
    # The same cosines as the model's own logits, which are scaled by its temperature.
    model = names["model"]
    with torch.no_grad():
        logits = model(names["image_input"], names["text_tokens"])[1] / model.logit_scale.exp()
    np.testing.assert_allclose(similarity, logits.cpu().numpy(), atol=1e-5)
    # Different texts and pictures have different features: nothing was ignored.
    assert len(np.unique(similarity.round(5))) > 50
    # What the guide's notebook prints of the model.
    parameters = sum(int(np.prod(parameter.shape)) for parameter in model.parameters())
    assert f"{parameters:,}" == "151,277,313"
    assert (model.visual.input_resolution, model.context_length, model.vocab_size) == (224, 77, 49_408)
    assert not model.training


def test_a_file_with_another_hash_is_not_used(tmp_path: Path) -> None:
    # What makes the replaced hash above necessary, and therefore the test honest.
    (tmp_path / "ViT-B-32.pt").write_bytes(b"another model")
    with pytest.raises(diptych.DownloadError, match="does not have the published SHA-256"):
        diptych.load("ViT-B/32", download_root=tmp_path, offline=True)
