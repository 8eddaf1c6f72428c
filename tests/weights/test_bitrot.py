"""Flipped bits and cut files: found before anything is parsed, wherever they are."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.training.saving.layout import checkpoint_folder
from diptych.training.saving.run_state import newest_whole
from diptych.weights import checkpoint
from diptych.weights.checkpoint import (
    TrainingState,
    load_checkpoint,
    load_state,
    save_checkpoint,
    verify_checkpoint,
)
from tests.weights.test_sharded import TINY, moments, tiny_model, write_together


def whole(folder: Path) -> Path:
    model = tiny_model()
    assert model.architecture == TINY
    state = TrainingState(moments(model), {"step": 2, "loss": 1.5})
    return save_checkpoint(folder, model, config.plain(Preprocess(16)), state=state)


def in_parts(folder: Path) -> Path:
    write_together(folder, 2)
    return folder


def damages(contents: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Half of them with one bit flipped, half cut at a place; the first and the last byte among them."""
    choose = random.Random(seed)
    places = [0, len(contents) - 1, *(choose.randrange(len(contents)) for _ in range(count))]
    for number, place in enumerate(places[:count]):
        if number % 2:
            yield contents[:place]
        else:
            flipped = bytearray(contents)
            flipped[place] ^= 1 << choose.randrange(8)
            yield bytes(flipped)


def means_the_same(one: bytes, other: bytes) -> bool:
    """Of two manifests, which are their own check: a blank for another is no damage."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def undetected(folder: Path, total: int) -> int:
    """How many of `total` damages, spread over the files of a checkpoint, pass for a whole one."""
    files = sorted(folder.iterdir())
    passed = 0
    for number, file in enumerate(files):
        contents = file.read_bytes()
        for damaged in damages(contents, -(-total // len(files)), seed=number):
            if file.name == checkpoint.MANIFEST and means_the_same(damaged, contents):
                continue
            # A new file, as the library may still have the old one mapped.
            file.unlink()
            file.write_bytes(damaged)
            with contextlib.suppress(CheckpointError):
                verify_checkpoint(folder)
                passed += 1
        file.unlink()
        file.write_bytes(contents)
    verify_checkpoint(folder)
    return passed


@pytest.mark.parametrize("write", [whole, in_parts])
def test_200_flips_and_cuts_of_a_checkpoint_are_found(tmp_path: Path, write: object) -> None:
    assert undetected(write(tmp_path / "step"), 200) == 0  # type: ignore[operator]


@pytest.mark.nightly
@pytest.mark.parametrize("write", [whole, in_parts])
def test_2000_flips_and_cuts_of_a_checkpoint_are_found(tmp_path: Path, write: object) -> None:
    assert undetected(write(tmp_path / "step"), 2_000) == 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json", "diptych.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        whole(checkpoint_folder(tmp_path, step))
    newest, before = checkpoint_folder(tmp_path, 2), checkpoint_folder(tmp_path, 1)
    assert newest_whole(tmp_path) == (newest, [])
    contents = (newest / name).read_bytes()
    for damaged in (contents[:-7], bytes([contents[0] ^ 1]) + contents[1:], b""):
        (newest / name).write_bytes(damaged)
        assert newest_whole(tmp_path) == (before, [newest])
    (newest / name).unlink()
    assert newest_whole(tmp_path) == (before, [newest])


def test_every_reader_checks_before_it_reads(tmp_path: Path) -> None:
    folder = whole(tmp_path / "step")
    for name, read in {"model.safetensors": load_checkpoint, "state.safetensors": load_state}.items():
        contents = (folder / name).read_bytes()
        (folder / name).write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=f"{name}: SHA-256 is"):
            read(folder)


def test_without_the_hashes_flipped_bits_would_be_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: what the format of the tensors alone would notice."""
    folder = whole(tmp_path / "step")
    recorded = checkpoint.read_manifest(folder).sha256
    monkeypatch.setattr(checkpoint, "sha256_of", lambda path, _: recorded[path.name])
    assert undetected(folder, 40) > 20
    file = folder / "model.safetensors"
    flipped = bytearray(file.read_bytes())
    flipped[-2] ^= 1
    file.write_bytes(flipped)
    loaded = load_checkpoint(folder)[0].state_dict()
    assert [name for name, value in tiny_model().state_dict().items() if not torch.equal(loaded[name], value)]
    assert load_file(file).keys() == loaded.keys()
