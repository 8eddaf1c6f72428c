"""A run that is stopped, or killed at any moment, ends with the bytes of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "tests.training.kill_server"


def experiments(scratch: Path, kills: int, *names: str) -> dict[str, Any]:
    """What `kill_server.py` found, in a process of its own without threads of torch."""
    command = [sys.executable, "-m", SCRIPT, str(scratch), str(kills), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return experiments(tmp_path_factory.mktemp("runs"), 6, "stopped", "killed", "twin")


def test_a_run_stopped_after_each_of_its_40_steps_is_the_run_that_was_not_stopped(
    found: dict[str, Any],
) -> None:
    assert found["steps"] == 40
    assert found["stopped"] == {"stops": 40, "differences": []}


def test_a_run_killed_at_random_moments_is_the_run_that_was_not_killed(found: dict[str, Any]) -> None:
    assert found["killed"]["kills"] == 6
    assert found["killed"]["differences"] == []
    # The moments are spread over the run, its first steps included.
    assert found["killed"]["with_checkpoints"] > 0


def test_decoding_threads_may_change_at_a_resume(tmp_path: Path) -> None:
    workers = experiments(tmp_path, 0, "workers")["workers"]
    assert workers == {"batches": 40, "same_ids": True, "differences": []}


def test_a_resume_without_the_optimizers_moments_is_caught(found: dict[str, Any]) -> None:
    assert {"model", "moments", "log"} <= set(found["twin"]["differences"])


@pytest.mark.nightly
def test_200_kills_change_nothing(tmp_path: Path) -> None:
    killed = experiments(tmp_path, 200, "killed")["killed"]
    assert killed["kills"] == 200
    assert killed["differences"] == []
