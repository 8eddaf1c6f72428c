"""Runs of a tiny model that are stopped and killed, each in a fork of one process that has imported torch already.

Run by `test_kill_resume.py` in a process of its own: nothing here uses a thread pool before it forks. Prints one
JSON object for each of the experiments that are named on the command line.
"""

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from diptych.data.loader import Loader
from diptych.tokenizer import tokenize
from diptych.training.engine import train
from diptych.training.saving.layout import BEST, checkpoints
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import STATE_TENSORS, WEIGHTS, read_manifest, write_manifest
from diptych.weights.checkpoint import Description as Described
from diptych.weights.folders import write_tensors
from tests.training.test_engine import tiny

STEPS = 40
TIMING = ("samples_per_second", "seconds", "data_share")
IDS = "ids.txt"
CRASHED, STOPPED = 1, 143


def recipe(*more: str) -> Recipe:
    """A step a checkpoint apart from the next, and a line of the log for each."""
    every = ("evaluation.every_steps=1", "checkpoint.every_steps=3")
    # As good as random, so that the best of a run is anywhere in it.
    return tiny(8 * STEPS, *every, "evaluation.best=weights", *more)


def weights_hash(model: torch.nn.Module, _: object) -> dict[str, float]:
    """Goes into the log of every step."""
    digest = 0
    for tensor in model.state_dict().values():
        digest = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, digest)
    return {"weights": digest}


class Stopper:
    """`weights_hash` that also asks for a stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, model: torch.nn.Module, preprocess: object) -> dict[str, float]:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)
        return weights_hash(model, preprocess)


def in_child(
    run: Path,
    settings: Recipe,
    evaluate: Any,
    ids: Path | None = None,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Start or resume a run in a fork, which calls `before` first; returns its process number."""
    child = os.fork()
    if child:
        return child
    code = CRASHED
    try:
        if ids is not None:
            _log_ids(ids)
        before()
        resume = (run / "recipe.json").exists()
        train(settings, run, resume=resume, evaluate=evaluate, console=Console(quiet=True))
        code = 0
    except KeyboardInterrupt:
        code = STOPPED
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _log_ids(log: Path) -> None:
    """One line a batch: its position, and its rows by what tells them apart."""
    original = Loader.batches

    def logged(loader: Loader, position: int) -> Iterator[Any]:
        for batch in original(loader, position):
            rows = [zlib.crc32(tokens.numpy().tobytes()) for tokens in batch.tokens]
            with log.open("a") as file:
                file.write(f"{batch.position} {batch.groups.tolist()} {rows}\n")
            yield batch

    Loader.batches = logged  # type: ignore[method-assign,assignment]


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_run(run: Path, settings: Recipe) -> None:
    assert ended(in_child(run, settings, weights_hash)) == 0


def traces(run: Path) -> dict[str, Any]:
    """All that two equal runs have equal: weights, moments, the log without timing, and the names in the folder."""
    last = checkpoints(run)[-1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "model": _digest(run / "model" / WEIGHTS),
        "checkpoint": _digest(last / WEIGHTS),
        "moments": _digest(last / STATE_TENSORS),
        "best": [_digest(run / BEST / WEIGHTS), read_manifest(run / BEST).history[-1]],
        "log": [{name: value for name, value in line.items() if name not in TIMING} for line in lines],
        "names": [folder.name for folder in checkpoints(run)],
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def differences(run: Path, expected: dict[str, Any]) -> list[str]:
    found = traces(run)
    return [name for name in expected if found[name] != expected[name]]


def stopped_after_each_step(scratch: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """One run in 40 processes: each does one step, is told to stop by SIGTERM, and saves."""
    run = scratch / "stopped"
    for step in range(1, STEPS + 1):
        # The last step ends the run, whatever was asked.
        code = ended(in_child(run, recipe(), Stopper(1)))
        assert code in (0, STOPPED), code
        assert checkpoints(run)[-1].name == f"step-{step:08d}", checkpoints(run)
    whole_run(run, recipe())
    found = differences(run, {**expected, "names": traces(run)["names"]})
    return {"stops": STEPS, "differences": found}


def killed_at_random(scratch: Path, expected: dict[str, Any], kills: int, seconds: float) -> dict[str, Any]:
    """Runs that are killed anywhere within the time that a whole one takes, until they end by themselves."""
    choose = random.Random(0)
    done, runs, found, at = 0, 0, [], []
    while done < kills:
        run = scratch / f"killed-{runs}"
        while True:
            child = in_child(run, recipe(), weights_hash)
            time.sleep(choose.uniform(0, seconds) if done < kills else 0)
            if done < kills and os.waitpid(child, os.WNOHANG) == (0, 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                done += 1
                at.append(len(checkpoints(run)))
                continue
            if done >= kills:
                ended(child)
            break
        found += [f"run {runs}: {name}" for name in differences(run, expected)]
        runs += 1
        shutil.rmtree(run)
    return {
        "kills": done,
        "runs": runs,
        "differences": found,
        "with_checkpoints": sum(count > 0 for count in at),
    }


def other_workers(scratch: Path) -> dict[str, Any]:
    """The numbers of decoding threads 0, 2, 4, each for a third of a run."""
    logs = []
    for name, parts in (("two", (2,)), ("any", (0, 2, 4))):
        run = scratch / f"{name}-workers"
        ids = scratch / f"{name}-{IDS}"
        for count in parts:
            last = count == parts[-1]
            evaluate = weights_hash if last else Stopper(13)
            code = ended(in_child(run, recipe(f"data.workers={count}"), evaluate, ids))
            assert code == (0 if last else STOPPED), code
        # Batches that were read ahead and not used are read again: the last word counts, and both are the same.
        lines = [line.split(" ", 1) for line in ids.read_text().splitlines()]
        logs.append(sorted({(int(position), rows) for position, rows in lines if int(position) < 8 * STEPS}))
    expected = traces(scratch / "two-workers")
    found = differences(scratch / "any-workers", expected)
    # The stops add checkpoints of their own.
    return {
        "batches": len(logs[0]),
        "same_ids": logs[0] == logs[1],
        "differences": [name for name in found if name != "names"],
    }


def without_moments(scratch: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """A broken twin: the optimizer's moments of the newest checkpoint are zeroed, with the right hashes."""
    run = scratch / "twin"
    ended(in_child(run, recipe(), Stopper(20)))
    newest = checkpoints(run)[-1]
    moments = load_file(newest / STATE_TENSORS)
    blank = {name: value * (1 if name.startswith("step.") else 0) for name, value in moments.items()}
    manifest = read_manifest(newest)
    described = {name: getattr(manifest, name) for name in Described.__dataclass_fields__}
    sha256 = {**manifest.sha256, STATE_TENSORS: write_tensors(newest / STATE_TENSORS, blank)}
    write_manifest(newest, Described(**described), sha256)
    whole_run(run, recipe())
    return {"differences": differences(run, expected)}


def warm() -> None:
    """Import and fill here, once, what every fork needs."""
    torch.set_num_threads(1)
    tokenize(["warm"])
    for module in ("torch._dynamo", "torch.utils.tensorboard"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def main(scratch: Path, kills: int, experiments: list[str]) -> None:
    warm()
    started = time.monotonic()
    whole_run(scratch / "whole", recipe())
    seconds = time.monotonic() - started
    expected = traces(scratch / "whole")
    results: dict[str, Any] = {"steps": len(expected["log"])}
    if "stopped" in experiments:
        results["stopped"] = stopped_after_each_step(scratch, expected)
    if "killed" in experiments:
        results["killed"] = killed_at_random(scratch, expected, kills, seconds)
    if "workers" in experiments:
        results["workers"] = other_workers(scratch)
    if "twin" in experiments:
        results["twin"] = without_moments(scratch, expected)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
