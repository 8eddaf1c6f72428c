"""A save that several processes share, of which one is killed or meets a fault at each of its points."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "tests.training.shard_points"
KINDS = ("killed", "full", "failed", "short")


def broken_at_every_point(scratch: Path, twin: str, *faults: str) -> dict[str, Any]:
    """What `shard_points.py` found, in a process of its own without threads of torch."""
    cases = json.dumps({"found": (twin, faults)})
    result = subprocess.run(
        [sys.executable, "-m", SCRIPT, str(scratch), cases],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["found"]
    return found


def test_a_full_disk_at_any_point_of_one_process_leaves_two_whole_checkpoints(tmp_path: Path) -> None:
    found = broken_at_every_point(tmp_path, "nothing", "full of 1")
    assert found["problems"] == []
    assert found["points"] > 20  # of two files of tensors and a message


@pytest.mark.nightly
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_whichever_process_breaks_wherever_two_whole_checkpoints_are_left(
    tmp_path: Path, kind: str, rank: int
) -> None:
    found = broken_at_every_point(tmp_path, "nothing", f"{kind} of {rank}")
    assert found["problems"] == []
    assert found["points"] > (10 if kind == "short" else 30)
    # A first process that breaks late has given the new one its name already.
    assert (found["old"] > 0) == (kind != "short")
    assert found["new"] > 0 or rank == 1


# Broken twins: each shows that the harness above sees what it is there to see.


def test_a_first_process_that_does_not_wait_for_the_others_is_caught(tmp_path: Path) -> None:
    found = broken_at_every_point(tmp_path, "nobody is waited for", "killed of 1")
    assert "are in no file" in found["problems"][0]


@pytest.mark.nightly
def test_a_part_that_is_taken_back_after_the_first_process_was_told_of_it_is_caught(tmp_path: Path) -> None:
    found = broken_at_every_point(tmp_path, "a part is taken back", "full of 1")
    assert "model-00001-of-00002.safetensors: is missing" in found["problems"][0]
