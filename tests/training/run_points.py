"""A run that is killed at each point at which it changes the disk, and goes on: is it the run that was not killed?

Run by `test_run_points.py` in a process of its own. Points are those of `tests/weights/fault_points.py`: before each
raw write and in its middle, each flush, each new, renamed and removed name, of logs, checkpoints, best and results.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from diptych.training.saving import saver
from diptych.training.saving.run_files import RunFiles
from diptych.training.saving.saver import Saver
from tests.training.kill_server import in_child, traces, warm, weights_hash
from tests.training.test_engine import tiny
from tests.weights.fault_points import Faults

STEPS = 3
RECIPE = tiny(
    8 * STEPS,
    "checkpoint.every_steps=1",
    "evaluation.every_steps=1",
    "evaluation.best=weights",
    "training.ema=0.5",
    "data.workers=0",
)


class AtOnce:
    """In place of the saving thread: with one thread, point number n is the same in every run."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., object], *arguments: object) -> "Future[object]":
        future: Future[object] = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None:
        pass


def outcome(run: Path) -> dict[str, Any]:
    """What `traces` compares, and every name in the folder; how many event files there are is up to the kills."""
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*"))
    return {**traces(run), "names": [name for name in names if not name.startswith("tensorboard/")]}


def ran(run: Path, at: int = 0) -> int:
    """How a process ended that begins the run or goes on with it, and is killed at point `at` if it comes there."""
    faults = Faults("killed" if at else "none", at)
    child = in_child(run, RECIPE, weights_hash, before=faults.install)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def break_the_run(twin: str) -> None:
    """Break it for the rest of this process."""
    patch = pytest.MonkeyPatch()
    if twin == "nothing deleted at a start":
        start = Saver.__init__

        def without(saver: Saver, *arguments: Any) -> None:
            with pytest.MonkeyPatch.context() as at_the_start:
                at_the_start.setattr(Saver, "_delete_old", lambda _: None)
                start(saver, *arguments)

        patch.setattr(Saver, "__init__", without)
    elif twin == "best after the checkpoint":
        save, best = RunFiles.save, RunFiles.save_best
        late: list[tuple[Any, ...]] = []
        patch.setattr(RunFiles, "save_best", lambda *arguments: late.append(arguments))

        def reversed_order(*arguments: Any) -> None:
            save(*arguments)
            for waiting in late:
                best(*waiting)
            late.clear()

        patch.setattr(RunFiles, "save", reversed_order)
    else:
        assert twin == "nothing", twin


def tried(scratch: Path, twin: str, every: int) -> dict[str, Any]:
    """Killed at each `every`-th point; stops at the first difference."""
    whole, run = scratch / "whole", scratch / "run"
    assert ran(whole) == 0
    expected = outcome(whole)
    break_the_run(twin)
    points, problems = 0, []
    for at in range(every, 1 << 20, every):
        shutil.rmtree(run, ignore_errors=True)
        ended = ran(run, at)
        if ended == 0:
            break
        points += 1
        if ended != -signal.SIGKILL or ran(run) != 0:
            problems.append(f"point {at}: the run ended with {ended}, or did not go on")
            break
        found = outcome(run)
        different = [name for name in expected if found[name] != expected[name]]
        if different:
            problems.append(f"point {at}: {different} differ; {found['names']}")
            break
    return {"points": points, "problems": problems}


if __name__ == "__main__":
    warm()
    pytest.MonkeyPatch().setattr(saver, "ThreadPoolExecutor", AtOnce)
    print(json.dumps(tried(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
