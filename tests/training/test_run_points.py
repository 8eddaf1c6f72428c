"""A run may be killed wherever it changes the disk: its logs, its checkpoints, its best, its results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "tests.training.run_points"


def killed_at(scratch: Path, twin: str, every: int) -> dict[str, Any]:
    """What `run_points.py` found, in a process of its own without threads of torch."""
    result = subprocess.run(
        [sys.executable, "-m", SCRIPT, str(scratch), twin, str(every)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_run_killed_at_points_all_over_it_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    found = killed_at(tmp_path, "nothing", 67)
    assert found["problems"] == []
    assert found["points"] >= 8


@pytest.mark.nightly
def test_a_run_killed_at_any_point_at_all_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    found = killed_at(tmp_path, "nothing", 1)
    assert found["problems"] == []
    assert found["points"] > 500


# Broken twins: each shows that the harness above sees what it is there to see.


@pytest.mark.nightly
def test_a_start_that_deletes_no_checkpoint_too_many_is_caught(tmp_path: Path) -> None:
    (problem,) = killed_at(tmp_path, "nothing deleted at a start", 3)["problems"]
    assert "['names'] differ" in problem
    assert "checkpoints/step-00000001'" in problem


@pytest.mark.nightly
def test_a_best_that_is_written_after_the_checkpoint_that_knows_of_it_is_caught(tmp_path: Path) -> None:
    (problem,) = killed_at(tmp_path, "best after the checkpoint", 10)["problems"]
    assert "best" in problem
