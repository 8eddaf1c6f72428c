"""A save that is killed, or whose disk is full, fails or writes less than it was given, at each of its points."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "tests.weights.fault_points"
KINDS = ("killed", "full", "failed", "short")

# Name of the case: what is broken about the writer itself, and the faults that it meets.
CASES = {
    **{f"{kind} checkpoint": ("nothing", [f"{kind} of checkpoint"]) for kind in KINDS},
    "killed model": ("nothing", ["killed of model"]),
    "no rename": ("no rename", ["killed of checkpoint"]),
    "delete first": ("delete first", ["killed of checkpoint"]),
    "two renames": ("two renames", ["killed of model"]),
    "no fsync of files": ("no fsync of files", []),
    "no fsync of folders": ("no fsync of folders", []),
}
Found = dict[str, dict[str, Any]]


def broken_at_every_point(scratch: Path, cases: dict[str, tuple[str, list[str]]]) -> Found:
    """What `fault_points.py` found in each case, in a process of its own without threads of torch."""
    command = [sys.executable, "-m", SCRIPT, str(scratch), json.dumps(cases)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return {name: found for line in result.stdout.splitlines() for name, found in json.loads(line).items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return broken_at_every_point(tmp_path_factory.mktemp("faults"), CASES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_broken_at_any_point_leaves_two_whole_ones(found: Found, kind: str) -> None:
    case = found[f"{kind} checkpoint"]
    assert case["problems"] == []
    # Of two files of tensors, one of values and one that describes them; a short write is only a write.
    assert case["points"] > (10 if kind == "short" else 40)
    assert case["new"] > 0
    assert (case["old"] > 0) == (kind != "short")


def test_a_model_is_replaced_by_another_in_one_moment(found: Found) -> None:
    case = found["killed model"]
    assert case["problems"] == []
    assert min(case["old"], case["new"]) > 0


def test_the_files_the_folder_and_its_name_reach_the_disk_in_this_order(found: Found) -> None:
    assert found["killed model"]["order"] == []


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_model_broken_at_any_point_is_the_old_one_or_the_new_one(tmp_path: Path, kind: str) -> None:
    case = broken_at_every_point(tmp_path, {"model": ("nothing", [f"{kind} of model"])})["model"]
    assert case["problems"] == []
    assert case["points"] > 10


# Broken twins: each shows that the harness above sees what it is there to see.


def test_a_save_without_a_rename_is_caught(found: Found) -> None:
    assert "step-00000003" in found["no rename"]["problems"][0]


def test_deleting_the_old_checkpoints_before_the_new_one_is_verified_is_caught(found: Found) -> None:
    assert "left ['step-00000002']" in found["delete first"]["problems"][0]


def test_a_model_that_steps_aside_for_its_successor_is_caught_missing(found: Found) -> None:
    assert "model/diptych.json: no such file" in found["two renames"]["problems"][0]


@pytest.mark.parametrize("what", ["files", "folders"])
def test_a_rename_before_the_contents_are_on_the_disk_is_caught(found: Found, what: str) -> None:
    assert any("renamed before" in line for line in found[f"no fsync of {what}"]["order"])
