"""Files of weights alone: what their model is follows from what is known, or is asked for."""

import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import diptych
from diptych import config
from diptych.atomic import sha256_of
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models import architectures as sizes
from diptych.models.architectures import Architecture
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint
from diptych.weights.checkpoint import save_checkpoint
from diptych.weights.foreign.plain_files import AssumedWarning
from diptych.weights.foreign.published import FILES, PublishedFile
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder
from tests.weights.small_clip import (
    PATCHES,
    RESNET,
    STAGES,
    TEXT,
    VIT,
    openai_state,
    same_weights,
    save,
    small_clip,
)

GELU = replace(VIT, activation="gelu")
OTHER = Preprocess(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear", resize="squash")
# transformers cannot have another vocabulary.
WIDE = replace(GELU, text=replace(TEXT, vocab_size=49_408, context_length=77))
CAPTIONER = sizes.Captioner(decoder_layers=1, context_length=12, vocab_size=100)

# One model of each kind that Diptych trains.
KINDS: dict[str, Architecture] = {
    "vit": VIT,
    "gelu": GELU,
    "resnet": RESNET,
    "other heads": replace(VIT, image=replace(PATCHES, heads=4), text=replace(TEXT, heads=2)),
    "sinusoidal positions": replace(VIT, text=replace(TEXT, positions="sinusoidal")),
    "compact vocabulary": replace(VIT, text=replace(TEXT, embedding_width=8, known=(3, 5, 98, 99))),
    "small stem": replace(RESNET, image=replace(STAGES, stem_stride=2)),
    "bag of words": replace(VIT, text=sizes.BagOfWords(width=32, context_length=12, vocab_size=100)),
    "captioner": replace(VIT, text=CAPTIONER),
    "captioner that reads forward": replace(
        VIT, text=replace(CAPTIONER, reads="forward", known=(3, 5, 98, 99))
    ),
    "masked captioner": replace(VIT, text=replace(CAPTIONER, reads="masked")),
    "word predictor": replace(
        VIT, text=sizes.WordPredictor(word_loss="sigmoid", context_length=12, vocab_size=100)
    ),
    "shared encoder": replace(
        VIT, text=sizes.SharedEncoder(hidden=(24, 16), classes=5, width=8, sound_bands=8, vocab_size=100)
    ),
    "projection head": replace(VIT, text=sizes.ProjectionHead(head_layers=2, head_dim=8)),
    "label head": replace(VIT, text=sizes.LabelHead(classes=("a cat", "ein Hündchen"))),
    "siglip": replace(VIT, logit_bias=-10.0),
    "nonlinear heads": replace(VIT, heads="nonlinear"),
    "fine-tuned": replace(VIT, classifier=sizes.Classifier(classes=("a", "b"), reads="embedding")),
    "several labels": replace(
        VIT, classifier=sizes.Classifier(classes=("a", "b"), reads="features", several=True)
    ),
}


@pytest.fixture
def gelu() -> ImageModel:
    return small_clip(GELU)


@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_save_writes_of_a_loaded_model_loads_back_exactly(tmp_path: Path, kind: str) -> None:
    save_checkpoint(tmp_path / "folder", small_clip(KINDS[kind]), config.plain(OTHER))
    model, preprocess = diptych.load(tmp_path / "folder", "cpu")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again, again_preprocess = diptych.load(tmp_path / "model.pt", "cpu")
    assert again.architecture == KINDS[kind]
    assert again_preprocess == OTHER
    assert same_weights(again, model)
    assert fingerprint(again, again_preprocess) == fingerprint(model, preprocess)


@pytest.mark.parametrize("kind", KINDS)
def test_diptych_save_keeps_every_kind_of_model(tmp_path: Path, kind: str) -> None:
    model = small_clip(KINDS[kind])
    assert diptych.save(model, OTHER, tmp_path / "folder") == tmp_path / "folder"
    again, preprocess = diptych.load(tmp_path / "folder", "cpu")
    assert again.architecture == model.architecture
    assert preprocess == OTHER
    assert same_weights(again, model)


def test_every_bundled_model_can_be_saved_as_a_state_dict(tmp_path: Path) -> None:
    for name in diptych.available_models()[9:]:
        model, preprocess = diptych.load(name, "cpu")
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "model.pt")
        assert fingerprint(*diptych.load(tmp_path / "model.pt", "cpu")) == fingerprint(model, preprocess)


def test_a_state_dict_of_a_wrapped_model_says_what_it_is(tmp_path: Path, gelu: ImageModel) -> None:
    gelu.preprocessing = config.plain(OTHER)
    wrapped = torch.nn.Sequential(OrderedDict(module=gelu))
    torch.save(wrapped.state_dict(), tmp_path / "model.pt")
    model, preprocess = diptych.load(tmp_path / "model.pt", "cpu")
    assert model.architecture == GELU
    assert preprocess == OTHER
    assert same_weights(model, gelu)


def test_a_state_dict_of_a_model_made_by_hand_says_what_is_assumed(tmp_path: Path, gelu: ImageModel) -> None:
    torch.save(gelu.state_dict(), tmp_path / "model.pt")
    with pytest.warns(AssumedWarning, match="does not describe the preprocessing; assumed: OpenAI's"):
        model, preprocess = diptych.load(tmp_path / "model.pt", "cpu")
    assert model.architecture == GELU
    assert preprocess == Preprocess(32)


def test_the_description_changes_neither_keys_nor_what_pytorch_loads(
    tmp_path: Path, gelu: ImageModel
) -> None:
    torch.save(gelu.state_dict(), tmp_path / "model.pt")
    read = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(read) == list(dict(gelu.named_parameters()))
    other = small_clip(GELU, seed=1)
    assert not any(other.load_state_dict(read))
    assert same_weights(other, gelu)


def _described(path: Path, model: ImageModel, description: Any) -> Path:
    state = model.state_dict()
    state._metadata[""]["diptych"] = description  # type: ignore[attr-defined]
    return save(state, path)


@pytest.mark.parametrize(
    "description",
    [
        "{",
        "[]",
        "3",
        "[" * 100_000,
        "{}",
        json.dumps({"architecture": 3}),
        json.dumps({"architecture": {"embed_dim": 16}}),
        json.dumps({"architecture": {**config.plain(GELU), "activation": "relu"}}),
        json.dumps({"architecture": {**config.plain(GELU), "embed_dim": 1 << 40}}),
        json.dumps({"architecture": config.plain(GELU), "preprocessing": {"resolution": -1}}),
        json.dumps({"architecture": config.plain(GELU), "preprocessing": 3}),
        json.dumps(
            {"architecture": config.plain(VIT) | {"embed_dim": 17}, "preprocessing": {"resolution": 32}}
        ),
    ],
)
def test_a_description_that_lies_is_refused(tmp_path: Path, gelu: ImageModel, description: str) -> None:
    with pytest.raises(CheckpointError):
        diptych.load(_described(tmp_path / "model.pt", gelu, description), "cpu")


def _training_checkpoint(model: ImageModel) -> dict[str, Any]:
    """What open_clip writes as epoch_1.pt."""
    state = {f"module.{name}": value for name, value in openai_state(model).items()}
    return {"epoch": 1, "name": "run", "state_dict": state, "optimizer": {"lr": [0.1]}}


def _files(folder: Path, model: ImageModel) -> dict[str, Path]:
    folder.mkdir()
    save_file(openai_state(model), folder / "plain.safetensors")
    return {
        "plain state dict": save(openai_state(model), folder / "plain.pt"),
        "open_clip's checkpoint": save(_training_checkpoint(model), folder / "epoch_1.pt"),
        "safetensors": folder / "plain.safetensors",
    }


def test_a_file_that_does_not_say_its_activation_is_refused(tmp_path: Path, gelu: ImageModel) -> None:
    for form, path in _files(tmp_path / "files", gelu).items():
        with pytest.raises(
            CheckpointError, match=r'activation="gelu".*--activation.*\?activation=gelu'
        ) as error:
            diptych.load(path, "cpu")
        assert str(path) in str(error.value), form


def test_a_file_is_read_with_the_activation_that_is_stated(tmp_path: Path, gelu: ImageModel) -> None:
    tokens = torch.tensor([[98, 5, 6, 7, 99, 0, 0, 0, 0, 0, 0, 0]])
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = gelu.encode_image(pixels), gelu.encode_text(tokens)
    for form, path in _files(tmp_path / "files", gelu).items():
        for name, options in ((path, {"activation": "gelu"}), (f"{path}?activation=gelu", {})):
            with pytest.warns(AssumedWarning, match="assumed: OpenAI's preprocessing.* 64 channels per head"):
                model, preprocess = diptych.load(name, "cpu", **options)  # type: ignore[arg-type]
            assert model.architecture == GELU, form
            assert preprocess == Preprocess(32), form
            with torch.inference_mode():
                assert torch.equal(model.encode_image(pixels), expected[0]), form
                assert torch.equal(model.encode_text(tokens), expected[1]), form
        with pytest.warns(AssumedWarning):
            other, _ = diptych.load(path, "cpu", activation="quick_gelu")
        assert other.architecture == VIT, form


def test_a_file_is_read_like_another_model(tmp_path: Path) -> None:
    mini, preprocess = diptych.load("diptych-mini", "cpu")
    bare: dict[str, Tensor] = dict(mini.state_dict())
    save_file(bare, tmp_path / "mini.safetensors")
    with pytest.raises(CheckpointError, match='like="diptych-mini"'):
        diptych.load(tmp_path / "mini.safetensors", "cpu", activation="gelu")
    again = diptych.load(tmp_path / "mini.safetensors", "cpu", like="diptych-mini")
    assert fingerprint(*again) == fingerprint(mini, preprocess)
    with pytest.raises(CheckpointError, match="tensors do not fit the architecture"):
        diptych.load(save(openai_state(small_clip()), tmp_path / "other.pt"), "cpu", like="diptych-mini")
    with pytest.raises(SettingsError, match="leave out like"):
        diptych.load("diptych-mini", "cpu", like="diptych-mini")


@pytest.mark.parametrize("form", ["diptych", "open_clip", "transformers"])
def test_the_configuration_beside_a_file_is_used(tmp_path: Path, form: str) -> None:
    folder, model = tmp_path / "folder", small_clip(WIDE)
    write: dict[str, Callable[[], object]] = {
        "diptych": lambda: save_checkpoint(folder, model, config.plain(OTHER)),
        "open_clip": lambda: write_open_clip_folder(folder, model, OTHER),
        "transformers": lambda: write_transformers_folder(folder, model, OTHER),
    }
    write[form]()
    expected = fingerprint(*diptych.load(folder, "cpu"))
    own = next(folder.glob("*.safetensors"))
    # The file of the folder itself is the folder.
    assert fingerprint(*diptych.load(own, "cpu")) == expected
    # Another one there, such as a later epoch, is another model of the same description.
    later = small_clip(WIDE, seed=1)
    if form == "transformers":
        write_transformers_folder(tmp_path / "later", later, OTHER)
        shutil.copy(next((tmp_path / "later").glob("*.safetensors")), folder / "epoch_2.safetensors")
    else:
        save_file(openai_state(later), folder / "epoch_2.safetensors")
    with pytest.warns(AssumedWarning, match=r"read as the model of .*\.json, because it lies beside"):
        found, preprocess = diptych.load(folder / "epoch_2.safetensors", "cpu")
    assert found.architecture == WIDE
    assert preprocess == OTHER
    assert same_weights(found, later)
    for place in (folder, own):
        with pytest.raises(SettingsError, match="its activation is 'gelu', not 'quick_gelu'"):
            diptych.load(place, "cpu", activation="quick_gelu")
        assert fingerprint(*diptych.load(place, "cpu", activation="gelu")) == expected


def test_open_clips_pickled_weights_are_read_with_the_configuration_beside_them(
    tmp_path: Path, gelu: ImageModel
) -> None:
    write_open_clip_folder(tmp_path / "folder", gelu, OTHER)
    (tmp_path / "folder" / "open_clip_model.safetensors").unlink()
    path = save(openai_state(gelu), tmp_path / "folder" / "open_clip_pytorch_model.bin")
    model, preprocess = diptych.load(path, "cpu")
    assert (model.architecture, preprocess) == (GELU, OTHER)


def test_a_configuration_of_another_program_says_nothing(tmp_path: Path, gelu: ImageModel) -> None:
    path = save(openai_state(gelu), tmp_path / "model.pt")
    for contents in ("{}", '{"model_type": "bert"}', "no JSON"):
        (tmp_path / "config.json").write_text(contents)
        with pytest.raises(CheckpointError, match="does not say which activation"):
            diptych.load(path, "cpu")


def test_a_file_with_the_hash_of_a_published_one_is_openais(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(openai_state(small_clip()), tmp_path / "renamed.pt")
    monkeypatch.setitem(FILES, "small", PublishedFile("small.pt", sha256_of(path)))
    model, preprocess = diptych.load(path, "cpu")
    assert (model.architecture, preprocess) == (VIT, Preprocess(32))
    assert diptych.load(path, "cpu", activation="quick_gelu")[0].architecture == VIT
    with pytest.raises(SettingsError, match="its activation is 'quick_gelu', not 'gelu'"):
        diptych.load(path, "cpu", activation="gelu")


def test_heads_that_shapes_do_not_show_are_refused(tmp_path: Path) -> None:
    wide = replace(GELU, image=replace(PATCHES, width=1280, heads=16, layers=1))
    path = save(openai_state(build_model(wide)), tmp_path / "ViT-H-14.pt")
    with pytest.raises(CheckpointError, match="80 channels per head"):
        diptych.load(path, "cpu", activation="gelu")


def test_an_unknown_activation_gets_the_nearest_one(tmp_path: Path, gelu: ImageModel) -> None:
    path = save(openai_state(gelu), tmp_path / "model.pt")
    with pytest.raises(SettingsError, match="did you mean 'quick_gelu'"):
        diptych.load(path, "cpu", activation="quickgelu")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'relu'; did you mean 'gelu'"):
        diptych.load(f"{path}?activation=relu", "cpu")
    with pytest.raises(SettingsError, match="states the activation"):
        diptych.load(f"{path}?activation=gelu", "cpu", activation="quick_gelu")


def test_a_device_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty

    def refuse(*size: Any, **options: Any) -> Tensor:
        if str(options.get("device")) == "cuda":
            raise AssertionError("Torch not compiled with CUDA enabled")
        return real(*size, **options)

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(
        SettingsError, match=r"device 'cuda' cannot be used.*\(Torch not compiled.*it has: cpu"
    ):
        diptych.load("diptych-mini", "cuda")
    with pytest.raises(SettingsError, match="device 'nonsense' cannot be used"):
        diptych.load("diptych-mini", "nonsense")


def test_a_device_of_another_make_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise NotImplementedError(
            "Could not run 'aten::empty' with arguments from the 'MPS' backend. " + "x " * 5_000
        )

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(SettingsError, match="'MPS' backend") as error:
        diptych.load("diptych-mini", "mps")
    assert len(str(error.value)) < 250
