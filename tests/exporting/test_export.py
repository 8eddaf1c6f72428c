"""`diptych.export`: what each format holds, what other libraries make of it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import diptych
from diptych.data.images.transforms import Preprocess
from diptych.exporting import sample_check
from diptych.exporting.export_model import FORMATS
from diptych.exporting.sample_check import check_export, sample_inputs
from diptych.models.architectures import (
    Activation,
    Architecture,
    Classifier,
    LabelHead,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder
from tests.tiny_model import preprocessing, random_clip

TOLERANCE = 1e-5
TEXTS = ["a red bicycle", "Wide-eyed OWLS, 2021!", "naïve 日本語"]


def units(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1)


@torch.no_grad()
def features(model: Any) -> tuple[Tensor, Tensor]:
    """Return features of an image in two sizes of batch, and of the texts, with Diptych's own inputs."""
    tokens = diptych.tokenize(TEXTS)
    pixels = torch.stack([preprocessing()(image()), preprocessing()(image().rotate(90))])
    images = torch.cat([model.encode_image(pixels), model.encode_image(pixels[:1])])
    return units(images), units(model.encode_text(tokens))


def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def differs(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("format", list(FORMATS))
def test_an_export_is_checked_and_can_be_replaced(tmp_path: Path, format: Any) -> None:
    for _ in range(2):
        report = diptych.export(random_clip(), preprocessing(), tmp_path / "out", format)
    assert report.check.images == report.check.same_top1 == 32
    assert report.check.largest_difference <= TOLERANCE
    assert report.remarks == ()
    assert set(report.files) == {path.name for path in (tmp_path / "out").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_open_clip_gives_the_same_features_and_tokens(open_clip: Any, tmp_path: Path) -> None:
    model = random_clip()
    diptych.export(model, preprocessing(), tmp_path / "out", "open_clip")
    place = f"local-dir:{tmp_path / 'out'}"
    theirs, prepare = open_clip.create_model_from_pretrained(place)
    assert differs(features(theirs), features(model)) <= TOLERANCE
    assert torch.equal(open_clip.get_tokenizer(place)(TEXTS), diptych.tokenize(TEXTS).long())
    assert (prepare(image()) - preprocessing()(image())).abs().max() <= 1.01 / 255 / 0.26


@torch.no_grad()
def test_transformers_gives_the_same_features_from_its_own_processor(
    transformers: Any, tmp_path: Path
) -> None:
    model = random_clip()
    diptych.export(model, preprocessing(), tmp_path / "out", "transformers")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out", use_fast=False)
    prepared = processor(text=TEXTS, images=image(), return_tensors="pt", padding=True)
    found = (
        units(theirs.get_image_features(pixel_values=prepared["pixel_values"]).pooler_output),
        units(
            theirs.get_text_features(
                input_ids=prepared["input_ids"], attention_mask=prepared["attention_mask"]
            ).pooler_output
        ),
    )
    expected = (
        units(model.encode_image(prepared["pixel_values"])),
        units(model.encode_text(diptych.tokenize(TEXTS))),
    )
    assert differs(found, expected) <= TOLERANCE
    assert (prepared["pixel_values"][0] - preprocessing()(image())).abs().max() <= 1.01 / 255 / 0.26


@pytest.mark.parametrize("format", ["open_clip", "transformers"])
def test_half_precision_halves_the_matrices(tmp_path: Path, format: Any) -> None:
    model = random_clip()
    whole = diptych.export(model, preprocessing(), tmp_path / "whole", format)
    half = diptych.export(model, preprocessing(), tmp_path / "half", format, precision="float16")
    sizes = [next(report.folder.glob("*.safetensors")).stat().st_size for report in (whole, half)]
    assert sizes[1] < 0.52 * sizes[0]
    assert 1e-6 < half.check.largest_difference < 1e-2
    assert half.precision == "float16"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_runs_without_the_package(tmp_path: Path) -> None:
    for model, preprocess in (
        (random_clip(), preprocessing()),
        diptych.load("diptych-mini", device="cpu"),
    ):
        diptych.export(model, preprocess, tmp_path / "out", "torchscript")
        program = torch.jit.load(tmp_path / "out" / "model.torchscript.pt")
        inputs = sample_inputs(preprocess, model.context_length)
        assert check_export(model, program, inputs, "float32").largest_difference <= TOLERANCE  # type: ignore[arg-type]
        for found, expected in zip(
            program(inputs.pixels[:3], inputs.tokens[:5]),
            model(inputs.pixels[:3], inputs.tokens[:5]),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        settings = json.loads((tmp_path / "out" / "preprocess_cfg.json").read_text())
        assert settings["size"] == [preprocess.resolution] * 2


@pytest.mark.parametrize("format", ["open_clip", "transformers"])
def test_the_bundled_model_says_why_it_cannot_be_a_folder_of_others(tmp_path: Path, format: Any) -> None:
    model, preprocess = diptych.load("diptych-mini", device="cpu")
    with pytest.raises(diptych.CheckpointError, match=r"bag of words|ResNet|stem") as caught:
        diptych.export(model, preprocess, tmp_path / "out", format)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def _with(**parts: Any) -> ImageModel:
    torch.manual_seed(0)
    architecture = Architecture(
        embed_dim=24,
        image=VisionTransformer(resolution=16, patch=8, width=32, layers=1, heads=2),
        text=TextTransformer(width=32, layers=1, heads=2),
        **parts,
    )
    return build_model(architecture).eval()


@pytest.mark.parametrize("format", ["open_clip", "transformers"])
@pytest.mark.parametrize(
    ("parts", "reason"), [({"heads": "nonlinear"}, "second layer"), ({"logit_bias": -10.0}, "bias of the")]
)
def test_a_part_that_changes_the_answers_is_refused(
    tmp_path: Path, format: Any, parts: dict[str, Any], reason: str
) -> None:
    with pytest.raises(diptych.CheckpointError, match=f"{format} has no such {reason}"):
        diptych.export(_with(**parts), preprocessing(), tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_classifier_is_left_out_with_a_remark(tmp_path: Path, format: Any) -> None:
    model = _with(classifier=Classifier(classes=("cat", "dog"), reads="embedding"))
    report = diptych.export(model, preprocessing(), tmp_path / "out", format)
    assert report.remarks[0].startswith("the classifier of 2 classes is left out")


def test_an_export_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["open_clip"]

    def write(folder: Path, model: CLIP, *rest: Any) -> Any:
        form.write(folder, model, *rest)
        nn.init.normal_(model.visual.proj)  # type: ignore[arg-type]
        return random_clip()

    monkeypatch.setitem(FORMATS, "open_clip", form._replace(write=write))
    with pytest.raises(diptych.CheckpointError, match=r"differs from its source by .* Nothing was written"):
        diptych.export(random_clip(), preprocessing(), tmp_path / "out", "open_clip")
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_numbers_fail_the_check() -> None:
    class Broken:
        def encode_image(self, pixels: Tensor) -> Tensor:
            return torch.full((len(pixels), 24), float("nan"))

        encode_text = encode_image

    inputs = sample_inputs(preprocessing(), 77)
    assert len(inputs.pixels) % sample_check._BATCH
    with pytest.raises(diptych.CheckpointError, match="differs from its source by nan"):
        check_export(random_clip(), Broken(), inputs, "float32")


@pytest.mark.parametrize(
    ("format", "precision", "message"),
    [
        ("open-clip", "float32", "did you mean 'open_clip'"),
        ("torchscript", "float16", "the format torchscript has float32"),
        ("open_clip", "int8", "the format open_clip has float32, float16"),
    ],
)
def test_an_unknown_format_or_precision_is_an_error(
    tmp_path: Path, format: Any, precision: Any, message: str
) -> None:
    with pytest.raises(diptych.SettingsError, match=message):
        diptych.export(random_clip(), preprocessing(), tmp_path / "out", format, precision=precision)


def test_a_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(diptych.CheckpointError, match="other files"):
        diptych.export(random_clip(), Preprocess(16), tmp_path, "transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_without_texts_is_refused(tmp_path: Path) -> None:
    architecture = Architecture(
        embed_dim=24,
        image=VisionTransformer(resolution=16, patch=8, width=32, layers=1, heads=2),
        text=LabelHead(classes=("cat", "dog")),
    )
    with pytest.raises(diptych.CheckpointError, match=r"use diptych\.save"):
        diptych.export(build_model(architecture), preprocessing(), tmp_path / "out", "torchscript")


def test_the_source_is_unchanged_in_training_mode(tmp_path: Path) -> None:
    model = random_clip().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    diptych.export(model, preprocessing(), tmp_path / "out", "torchscript")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def switched(image: dict[str, Any], text: dict[str, Any], activation: Activation = "gelu") -> Architecture:
    return Architecture(
        embed_dim=16,
        image=VisionTransformer(resolution=32, patch=16, width=64, layers=1, **image),
        text=TextTransformer(width=64, layers=1, **text),
        activation=activation,
    )


@pytest.mark.parametrize(
    ("image", "text", "name"),
    [
        ({"first_norm": False}, {}, "first_norm = False of a VisionTransformer"),
        ({"pool": "mean"}, {}, "pool = 'mean' of a VisionTransformer"),
        ({"positions": "sinusoidal"}, {}, "positions = 'sinusoidal' of a VisionTransformer"),
        ({"layer_scale": 0.1}, {}, r"layer_scale = 0\.1 of a VisionTransformer"),
        ({}, {"causal": False}, "causal = False of a TextTransformer"),
        ({}, {"pool": "last"}, "pool = 'last' of a TextTransformer"),
        ({}, {"end_id": 2}, "end_id = 2 of a TextTransformer"),
        ({}, {"projection": "biased"}, "projection = 'biased' of a TextTransformer"),
    ],
)
def test_a_switch_that_transformers_has_not_is_refused_by_its_name(
    tmp_path: Path, image: dict[str, Any], text: dict[str, Any], name: str
) -> None:
    with pytest.raises(diptych.CheckpointError, match=f"CLIP of transformers has no {name}"):
        write_transformers_folder(tmp_path / "out", build_model(switched(image, text)), preprocessing())


def test_towers_of_two_activations_are_refused_where_open_clip_has_one_switch_for_both(
    tmp_path: Path,
) -> None:
    model = build_model(switched({}, {"activation": "gelu_tanh"}, "quick_gelu"))
    with pytest.raises(diptych.CheckpointError, match="the model quick_gelu and gelu_tanh"):
        write_open_clip_folder(tmp_path / "out", model, preprocessing())
