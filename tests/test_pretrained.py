"""`diptych.load`, `available_models` and `fingerprint`."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import verify_weights
from PIL import Image

import diptych
from diptych import config
from diptych.atomic import sha256_of
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, DownloadError, SettingsError
from diptych.hardware import pick_device
from diptych.models.architectures import PUBLISHED, Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint
from diptych.weights.checkpoint import save_checkpoint
from diptych.weights.foreign.openai import openai_layout
from diptych.weights.foreign.published import FILES, PublishedFile, cache_folder
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder

ARCHITECTURE = Architecture(
    embed_dim=32,
    image=VisionTransformer(resolution=32, patch=8, width=64, layers=2),
    text=TextTransformer(width=64, layers=2),
)
PREPROCESS = Preprocess(32)


def _model(seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return build_model(ARCHITECTURE).eval()


def _openai_file(path: Path, model: ImageModel) -> Path:
    layout = openai_layout("")
    torch.save({layout(name).names[0]: value for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, Path]:
    """One model, kept in every form that Diptych reads."""
    model = _model()
    paths = {name: tmp_path / name for name in ("diptych", "open_clip", "transformers", "openai.pt")}
    save_checkpoint(paths["diptych"], model, config.plain(PREPROCESS))
    write_open_clip_folder(paths["open_clip"], model, PREPROCESS)
    write_transformers_folder(paths["transformers"], model, PREPROCESS)
    _openai_file(paths["openai.pt"], model)
    return paths


def test_the_folder_of_a_run_stands_for_the_model_in_it(tmp_path: Path) -> None:
    model = _model()
    save_checkpoint(tmp_path / "run" / "model", model, config.plain(PREPROCESS))
    (tmp_path / "run" / "recipe.json").write_text("{}")
    loaded, preprocess = diptych.load(tmp_path / "run", device="cpu")
    assert fingerprint(loaded, preprocess) == fingerprint(model, PREPROCESS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty"):
        diptych.load(tmp_path / "empty")


def test_every_form_of_a_model_loads_as_the_same_model(
    forms: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fingerprint(_model(), PREPROCESS)
    published = PublishedFile("small.pt", sha256_of(forms["openai.pt"]))
    monkeypatch.setitem(FILES, "small", published)  # a file with its hash is OpenAI's
    for name, path in forms.items():
        model, preprocess = diptych.load(path, device="cpu")
        assert not model.training, name
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}, name
        assert fingerprint(model, preprocess) == expected, name
        assert fingerprint(*diptych.load(str(path), "cpu")) == expected, name


def test_the_fingerprint_changes_with_whatever_changes_features() -> None:
    model = _model()
    known = {fingerprint(model, PREPROCESS)}
    with torch.no_grad():
        model.get_parameter("visual.proj")[0, 0] += 1e-6
    known.add(fingerprint(model, PREPROCESS))
    for change in (
        {"resolution": 40},
        {"interpolation": "bilinear"},
        {"resize": "squash"},
        {"mean": (0.5, 0.5, 0.5)},
    ):
        known.add(fingerprint(model, dataclasses.replace(PREPROCESS, **change)))
    gelu = build_model(dataclasses.replace(ARCHITECTURE, activation="gelu"))
    gelu.load_state_dict(model.state_dict())
    known.add(fingerprint(gelu, PREPROCESS))
    assert len(known) == 7
    assert fingerprint(_model(), PREPROCESS) in known


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_keeps_the_fingerprint_and_nearly_the_features(
    forms: dict[str, Path], precision: str
) -> None:
    whole, preprocess = diptych.load(forms["diptych"], "cpu")
    half, _ = diptych.load(forms["diptych"], "cpu", precision=precision)  # type: ignore[arg-type]
    assert fingerprint(half, preprocess) == fingerprint(whole, preprocess)
    assert half.dtype == getattr(torch, precision)
    assert half.logit_scale.dtype == torch.float32
    pixels, tokens = torch.randn(2, 3, 32, 32), diptych.tokenize(["a cat", "two dogs in the snow"])
    with torch.inference_mode():
        pairs = [
            (whole.encode_image(pixels), half.encode_image(pixels)),
            (whole.encode_text(tokens), half.encode_text(tokens)),
        ]
    for expected, found in pairs:
        assert torch.nn.functional.cosine_similarity(expected, found.float()).min() > 0.999


def test_another_resolution_changes_model_and_preprocessing_together(forms: dict[str, Path]) -> None:
    model, preprocess = diptych.load(forms["diptych"], "cpu", resolution=48)
    assert model.visual.input_resolution == preprocess.resolution == 48
    with pytest.raises(SettingsError, match="found 45; try 48"):
        diptych.load(forms["diptych"], "cpu", resolution=45)


@pytest.fixture
def published_file(forms: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small file that is published under the name of a large one."""
    monkeypatch.setitem(FILES, "ViT-B/32", PublishedFile("ViT-B-32.pt", sha256_of(forms["openai.pt"])))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    return Path(shutil.copy(forms["openai.pt"], tmp_path / "cache" / "models" / "ViT-B-32.pt"))


def test_a_published_name_loads_from_the_cache_and_from_another_folder(
    published_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = fingerprint(_model(), PREPROCESS)
    assert fingerprint(*diptych.load("ViT-B/32", device="cpu", offline=True)) == expected
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "nowhere"))
    model, preprocess = diptych.load("ViT-B/32", "cpu", False, str(published_file.parent))
    assert fingerprint(model, preprocess) == expected


def test_a_missing_published_file_is_named_offline(published_file: Path) -> None:
    published_file.unlink()
    with pytest.raises(DownloadError, match=r"ViT-B/32: ViT-B-32\.pt is not on this machine"):
        diptych.load("ViT-B/32", "cpu", offline=True)


def test_a_file_that_was_changed_is_never_parsed(published_file: Path) -> None:
    published_file.write_bytes(published_file.read_bytes() + b"\0")
    with pytest.raises(DownloadError, match="does not have the published SHA-256"):
        diptych.load("ViT-B/32", "cpu", offline=True)


def test_a_device_may_be_an_object_and_defaults_to_what_there_is(forms: dict[str, Path]) -> None:
    model, _ = diptych.load(forms["diptych"], torch.device("cpu"))
    assert model.logit_scale.device.type == "cpu"
    model, _ = diptych.load(forms["diptych"])
    assert model.logit_scale.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    model, _ = diptych.load(forms["diptych"], "auto")
    assert model.logit_scale.device.type == pick_device("auto")


def test_jit_and_unknown_precisions_are_explained(forms: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="never runs its program"):
        diptych.load(forms["diptych"], "cpu", jit=True)
    with pytest.raises(SettingsError, match="did you mean 'bfloat16'"):
        diptych.load(forms["diptych"], "cpu", precision="bfloat1")  # type: ignore[arg-type]


def test_an_unknown_name_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="did you mean 'ViT-B/32'"):
        diptych.load("ViT-B32", "cpu")
    with pytest.raises(CheckpointError, match="neither a file, nor a folder"):
        diptych.load(tmp_path / "absent.pt", "cpu")


def test_the_nine_published_names_come_first_in_their_published_order() -> None:
    assert diptych.available_models()[:9] == list(PUBLISHED) == list(FILES)


def test_every_bundled_model_loads() -> None:
    for name in diptych.available_models()[9:]:
        model, preprocess = diptych.load(name, "cpu", offline=True)
        assert model.visual.input_resolution == preprocess.resolution


def test_the_readme_of_the_original_runs_with_one_line_changed(published_file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "CLIP.png")
    device = "cpu"
    model, preprocess = diptych.load("ViT-B/32", device=device)
    image = preprocess(Image.open(tmp_path / "CLIP.png")).unsqueeze(0).to(device)
    text = diptych.tokenize(["a diagram", "a dog", "a cat"]).to(device)
    with torch.no_grad():
        image_features = model.encode_image(image)
        text_features = model.encode_text(text)
        logits_per_image, _ = model(image, text)
        probs = logits_per_image.softmax(dim=-1).cpu().numpy()
    assert image_features.shape == (1, 32)
    assert text_features.shape == (3, 32)
    assert probs.sum() == pytest.approx(1)


def test_loading_does_not_wait_for_pytorchs_compiler(forms: dict[str, Path]) -> None:
    """It would add a second to every command's first answer."""
    code = (
        "import sys, diptych; diptych.load(sys.argv[1], 'cpu'); "
        "sys.exit(any(name in sys.modules for name in ('torch._dynamo', 'sympy', 'rich.progress')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(forms["diptych"])], check=False).returncode == 0


@pytest.fixture
def verified_folder(
    forms: dict[str, Path], published_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    monkeypatch.setitem(PUBLISHED, "ViT-B/32", ARCHITECTURE)
    count = sum(parameter.numel() for parameter in _model().parameters())
    monkeypatch.setitem(verify_weights.PARAMETERS, "ViT-B/32", count)
    return published_file.parent


def test_verify_checks_what_is_there(verified_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_weights.main([str(verified_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert [line.split()[:2] for line in lines if not line.startswith("absent")] == [["right", "ViT-B/32"]]


def test_verify_finds_a_wrong_file_and_wrong_probabilities(
    verified_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (60, 40), "red").save(verified_folder / "CLIP.png")
    assert verify_weights.main([str(verified_folder)]) == 1
    assert "expected [0.9927937, 0.00421068, 0.00299572]" in capsys.readouterr().out
    (verified_folder / "RN50.pt").write_bytes(b"")
    (verified_folder / "CLIP.png").unlink()
    assert verify_weights.main([str(verified_folder)]) == 1
    assert "wrong    RN50" in capsys.readouterr().out


def test_verify_without_files_or_folder_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_weights.main([str(tmp_path)]) == 1
    assert "none of the nine" in capsys.readouterr().err
    assert verify_weights.main([]) == 2


@pytest.mark.official_weights
@pytest.mark.parametrize("name", FILES)
def test_an_official_file_is_right(name: str) -> None:
    if not (cache_folder() / FILES[name].name).is_file():
        pytest.skip(f"{FILES[name].name} is not in {cache_folder()}")
    assert verify_weights._problem(name, cache_folder()) == ""
