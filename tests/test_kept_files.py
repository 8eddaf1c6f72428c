"""Checkpoints, runs, indexes, recipes and JSON from before the layout changed still work; tests/kept/README.md says how
they were made."""

import contextlib
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diptych
from diptych.cli.__main__ import main
from tests.data.tar_files import unpack

KEPT = Path(__file__).parent / "kept"
MADE_AT = "/srv/kept"
CONTRACTS = json.loads((KEPT / "contracts.json").read_text("utf-8"))
WRITTEN = ("run", "simclr", "index", "suite", "tuned", "sweep", "calibration.json")
# What depends on the clock, the machine, or the place of the files.
VARIES = {"verdict", "seconds", "samples_per_second", "data_share", "detail", "id"}
# Another processor adds up in another order, and training multiplies what differs.
CLOSE = 2e-3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all the kept files."""
    return unpacked(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recipes and images alone."""
    folder = unpacked(tmp_path_factory.mktemp("fresh"))
    for name in WRITTEN:
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    return folder


def unpacked(folder: Path) -> Path:
    unpack(KEPT / "before_layout.tar.xz", folder)
    return folder


def run(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """What a command prints as JSON, line by line."""
    capsys.readouterr()
    with contextlib.chdir(folder):
        code = main([*shlex.split(command), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    out = captured.out.replace(str(folder), MADE_AT)
    return [json.loads(line) for line in out.splitlines() if line.strip()]


def compare(expected: Any, found: Any, place: str = "") -> None:
    """Every field that was there is there, of the same kind and with the same value; fields may have been added."""
    if VARIES & set(place.split("/")):
        assert isinstance(found, type(expected)), place
    elif isinstance(expected, dict):
        assert isinstance(found, dict), place
        assert expected.keys() <= found.keys(), f"{place}: gone: {expected.keys() - found.keys()}"
        for name, value in expected.items():
            compare(value, found[name], f"{place}/{name}")
    elif isinstance(expected, list):
        assert isinstance(found, list), place
        assert len(found) == len(expected), place
        for value, other in zip(expected, found, strict=True):
            compare(value, other, place)
    elif isinstance(expected, float):
        assert isinstance(found, int | float), place
        assert math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE), f"{place}: {found} for {expected}"
    else:
        assert found == expected, place


def commands(*verbs: str) -> list[Any]:
    return [pytest.param(each, id=each["command"]) for each in CONTRACTS if each["command"].startswith(verbs)]


@pytest.mark.parametrize("contract", commands(""))
def test_a_command_prints_what_it_printed(
    contract: dict[str, Any], fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(contract["output"], run(contract["command"], fresh, capsys))


@pytest.mark.parametrize(
    "contract",
    commands(
        "search", "evaluate all", "evaluate labels", "report", "compare", "verify index", "sweep simclr.toml"
    ),
)
def test_a_command_reads_what_was_written_before(
    contract: dict[str, Any], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(contract["output"], run(contract["command"], kept, capsys))


def test_a_run_goes_on_from_its_old_checkpoint_to_the_same_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unpacked(tmp_path)
    model = folder / "run" / "model"
    before = load_file(model / "model.safetensors")
    shutil.rmtree(model)
    (output,) = run("train tiny.toml --out run --resume --device cpu", folder, capsys)
    assert output["step"] == 4
    after = load_file(model / "model.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_an_old_index_finds_the_files_that_it_remembers(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = next(each for each in CONTRACTS if each["command"].startswith("search"))
    found = run(contract["command"], kept, capsys)[0]["results"]
    assert [row["uri"] for row in found] == [row["uri"] for row in contract["output"][0]["results"]]
    assert found[0]["uri"].startswith(f"{MADE_AT}/images/circle/")


def test_an_old_calibration_is_still_applied(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (rows,) = run("classify images/circle/red.png --calibration calibration.json --device cpu", kept, capsys)
    assert [row["label"] for row in rows[0]["predictions"]]
    assert isinstance(rows[0]["none_of_these"], bool)


@pytest.mark.parametrize("folder", ["run/model", "simclr/model", "tuned/model"])
def test_an_old_model_loads_and_sees(folder: str, kept: Path) -> None:
    model, _ = diptych.load(kept / folder, device="cpu")
    size = model.visual.input_resolution
    assert model.image_features(torch.zeros(1, 3, size, size)).shape == (1, 8)
