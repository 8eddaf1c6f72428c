"""Diptych's own checkpoint folders."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diptych import atomic, config
from diptych.errors import CheckpointError
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.weights import checkpoint
from diptych.weights.checkpoint import (
    TrainingState,
    load_checkpoint,
    load_state,
    read_manifest,
    save_checkpoint,
    verify_checkpoint,
)
from diptych.weights.folders import sweep, write_tensors

TEXT = TextTransformer(width=64, layers=1, vocab_size=100, context_length=12)
VIT = Architecture(
    embed_dim=16, image=VisionTransformer(resolution=16, patch=8, width=64, layers=1), text=TEXT
)
RESNET = Architecture(
    embed_dim=16,
    image=ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=4, heads=2, stem_stride=2),
    text=BagOfWords(width=16, vocab_size=100),
    activation="gelu",
)
PREPROCESS = {"resolution": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def _model(architecture: Architecture = VIT, seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return build_model(architecture)


def _equal(one: ImageModel, other: ImageModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("architecture", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_saved_model_comes_back_to_the_bit(tmp_path: Path, architecture: Architecture) -> None:
    model = _model(architecture)
    save_checkpoint(
        tmp_path / "run", model, PREPROCESS, settings={"optimizer": {"learning_rate": 5e-4}}, history=["born"]
    )
    loaded, preprocess, manifest = load_checkpoint(tmp_path / "run")
    assert loaded.architecture == architecture
    assert preprocess == PREPROCESS
    assert manifest.settings == {"optimizer": {"learning_rate": 5e-4}}
    assert manifest.history == ("born",)
    assert manifest.kind == "clip"
    assert not loaded.training
    assert _equal(model, loaded)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_halves_the_matrices_and_keeps_the_vectors(tmp_path: Path) -> None:
    model = _model()
    save_checkpoint(tmp_path / "half", model, PREPROCESS, precision="float16")
    loaded, _, manifest = load_checkpoint(tmp_path / "half")
    assert manifest.precision == "float16"
    for name, value in model.state_dict().items():
        expected = value.half().float() if value.ndim > 1 else value
        assert torch.equal(loaded.state_dict()[name], expected), name


def test_training_state_comes_back(tmp_path: Path) -> None:
    tensors = {
        "exp_avg.visual.proj": torch.arange(12.0).view(3, 4),
        "step": torch.tensor(7),
        "rng": torch.arange(5).byte(),
    }
    values = {"step": 7, "best": math.inf, "losses": ["0x1.8p+1"], "nested": {"a": None}}
    save_checkpoint(tmp_path / "run", _model(), PREPROCESS, state=TrainingState(tensors, values))
    loaded, loaded_values = load_state(tmp_path / "run")
    assert loaded_values == values
    assert {name: value.dtype for name, value in loaded.items()} == {n: v.dtype for n, v in tensors.items()}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_model_without_state_says_that_it_cannot_be_resumed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path / "run")


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json", "diptych.json"])
def test_a_missing_or_shortened_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path / "run", _model(), PREPROCESS, state=TrainingState({}, {"step": 1}))
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=name):
        verify_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        verify_checkpoint(folder)


def _edit(folder: Path, **changes: object) -> None:
    """Change the manifest as a forger would: with a fresh checksum."""
    path = folder / "diptych.json"
    contents = {**json.loads(path.read_text()), **changes}
    contents.pop("checksum")
    path.write_text(json.dumps({**contents, "checksum": checkpoint._checksum(contents)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "newer than this Diptych reads"),
        ({"kind": "simclr"}, "kind 'simclr'"),
        ({"tokenizer": "0" * 64}, "another tokenizer"),
        ({"surprise": 1}, "surprise"),
        ({"architecture": {"embed_dim": 16}}, "missing setting"),
        ({"architecture": {**config.plain(VIT), "activation": "relu"}}, "'relu' is not one of"),
        ({"sha256": {"../elsewhere": "0" * 64}}, "is missing"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    _edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("part", "sizes", "message"),
    [
        ("text", {"layers": 1_000_000_000}, "1000000001 layers"),
        ("text", {"width": 1 << 40}, "expected 1 to"),
        ("text", {"vocab_size": 200_000}, "of another shape"),
        ("image", {"width": -64}, "expected 1 to"),
        ("image", {"patch": 5}, "not a multiple of the patch"),
    ],
)
def test_an_architecture_that_lies_about_sizes_is_refused_before_memory_is_taken(
    tmp_path: Path, part: str, sizes: dict[str, int], message: str
) -> None:
    folder = save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    plain = config.plain(VIT)
    _edit(folder, architecture={**plain, part: {**plain[part], **sizes}})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_one_error_lists_at_most_ten_names_of_each_problem(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    plain = config.plain(VIT)
    _edit(folder, architecture={**plain, "text": {**plain["text"], "layers": 3, "width": 128}})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    missing, misshaped = message.splitlines()[1:]
    assert missing.startswith("  missing (24): text.transformer.resblocks.1.")
    assert missing.count("resblocks") == 10
    assert missing.endswith("and 14 more")
    assert misshaped.startswith("  of another shape (")
    assert misshaped.count("expected") == 10


def test_not_a_number_is_refused_by_the_reader(tmp_path: Path) -> None:
    model = _model()
    folder = save_checkpoint(tmp_path / "run", model, PREPROCESS)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["visual.proj"][0, 0] = float("nan")
    _edit(folder, sha256={"model.safetensors": write_tensors(folder / "model.safetensors", weights)})
    with pytest.raises(CheckpointError, match=r"visual\.proj.*NaN"):
        load_checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_is_never_written(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    save_checkpoint(tmp_path / "run", _model(seed=0), PREPROCESS)
    moments = torch.zeros(5, dtype=dtype)
    moments[3] = value
    state = TrainingState({"empty": torch.zeros(0), "exp_avg.visual.proj": moments}, {})
    with pytest.raises(CheckpointError, match=r"'exp_avg\.visual\.proj' holds NaN or infinity"):
        save_checkpoint(tmp_path / "run", _model(seed=1), PREPROCESS, state=state)
    assert os.listdir(tmp_path) == ["run"]
    assert _equal(load_checkpoint(tmp_path / "run")[0], _model(seed=0))


def test_a_matrix_that_half_precision_cannot_hold_is_not_written(tmp_path: Path) -> None:
    model = _model()
    with torch.no_grad():
        model.get_parameter("visual.proj")[0, 0] = 70_000.0  # float16 ends at 65,504
    save_checkpoint(tmp_path / "full", model, PREPROCESS)
    with pytest.raises(CheckpointError, match=r"visual\.proj.*infinity in torch\.float16"):
        save_checkpoint(tmp_path / "half", model, PREPROCESS, precision="float16")


def test_tensors_are_written_byte_for_byte_as_the_safetensors_library_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
    tensors = {f"b{dtype}": torch.randn(3, 5).to(dtype) for dtype in types}
    tensors |= {f"a{dtype}": torch.randn(7).mul(9).to(dtype) for dtype in (*types, torch.int8, torch.int16)}
    tensors |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        'of "words" \n\té': torch.ones(2),
        "bool": torch.tensor([True, False, True]),
        "uint8": torch.arange(9, dtype=torch.uint8),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "large": torch.randn(1_100_000),  # more than one block
    }
    for metadata in (None, {"format": "pt"}):
        digest = write_tensors(tmp_path / "ours", tensors, metadata)
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs", metadata
        )
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
        assert digest == hashlib.sha256((tmp_path / "ours").read_bytes()).hexdigest()


def test_the_hash_is_of_what_was_meant_so_a_disk_that_wrote_something_else_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(path: Path, tensors: Mapping[str, torch.Tensor], **options: Any) -> str:
        digest = write_tensors(path, tensors, **options)
        whole = bytearray(path.read_bytes())
        whole[-1] ^= 1
        path.write_bytes(whole)
        return digest

    monkeypatch.setattr(checkpoint, "write_tensors", faulty)
    folder = save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256 is"):
        verify_checkpoint(folder)


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", _model(seed=0), PREPROCESS)
    second = _model(seed=1)
    save_checkpoint(tmp_path / "run", second, PREPROCESS)
    loaded, _, _ = load_checkpoint(tmp_path / "run")
    assert _equal(loaded, second)
    assert os.listdir(tmp_path) == ["run"]


def test_without_an_exchange_of_names_the_older_folder_steps_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    save_checkpoint(tmp_path / "run", _model(seed=0), PREPROCESS)
    save_checkpoint(tmp_path / "run", _model(seed=1), PREPROCESS)
    assert _equal(load_checkpoint(tmp_path / "run")[0], _model(seed=1))
    assert os.listdir(tmp_path) == ["run"]


def test_what_killed_saves_left_is_swept_and_a_folder_that_stepped_aside_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", _model(), PREPROCESS)
    (tmp_path / "run").rename(tmp_path / ".run.ab_c1.old")
    for name in (".run.ab_c1.tmp", ".step-1.doomed.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".letter.tmp").write_text("a file of somebody else")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".letter.tmp", "run"]
    verify_checkpoint(tmp_path / "run")


def test_a_failing_save_leaves_the_old_checkpoint_and_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _model(seed=0)
    save_checkpoint(tmp_path / "run", first, PREPROCESS)

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "run", _model(seed=1), PREPROCESS)
    assert os.listdir(tmp_path) == ["run"]
    loaded, _, _ = load_checkpoint(tmp_path / "run")
    assert _equal(loaded, first)


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match="other files"):
        save_checkpoint(tmp_path / "photos", _model(), PREPROCESS)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_folder_without_a_manifest_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"diptych\.json: no such file"):
        read_manifest(tmp_path)
