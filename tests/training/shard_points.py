"""Breaks a save of two processes at each of its points, and looks at what is left.

Run by `test_shard_faults.py` in a process of its own, so that the forks start from one without threads. As
`tests/weights/fault_points.py`, whose points these are; here one of the two processes meets the fault, and the other
goes on alone: torchrun would end it, but must not be what keeps the checkpoints whole.
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.atomic import write_text
from diptych.errors import CheckpointError
from diptych.tokenizer import default_tokenizer
from diptych.training.saving import saver
from diptych.training.saving.layout import checkpoint_folder
from diptych.training.saving.saver import Saver
from diptych.weights import sharded
from diptych.weights.folders import read_json
from diptych.weights.pieces import Rows
from diptych.weights.sharded import Place
from tests.weights.fault_points import KEEP, Faults, Story, snapshot_of

PROCESSES = 2
ENOUGH = 0.25  # seconds that the whole process waits for the broken one; a save takes a tenth of that


def half_of_each(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Rows]:
    """As `fully_shard` cuts: the first half of the rows, or the second; what has no rows is the first process's."""
    pieces = {}
    for name, tensor in tensors.items():
        if not tensor.ndim:
            if rank == 0:
                pieces[name] = Rows(tensor, 0, ())
            continue
        cut = -(-len(tensor) // PROCESSES)
        pieces[name] = Rows(tensor[:cut] if rank == 0 else tensor[cut:], cut * rank, tuple(tensor.shape))
    return pieces


def save(run: Path, rank: int) -> None:
    with Saver(run, KEEP, Place(rank, PROCESSES, "session", ENOUGH)) as saver:
        saver.save(checkpoint_folder(run, 3), snapshot_of(3))


def started(run: Path, rank: int, faults: Faults) -> tuple[int, int]:
    """A process that saves its part: its number, and the pipe in which it tells how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    ending, message = "done", ""
    faults.install()
    try:
        save(run, rank)
    except CheckpointError as error:
        ending, message = "error", str(error)
    except BaseException as error:
        ending, message = "crash", repr(error)
    os.write(writer, json.dumps([ending, message, faults.struck]).encode())
    os._exit(0)


def ended(child: int, reader: int) -> tuple[str, str, bool]:
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    if os.waitpid(child, 0)[1] == signal.SIGKILL:
        return "killed", "", True
    ending, message, struck = json.loads(said)
    return ending, message, struck


def enumerate_points(story: Story, kind: str, broken: int) -> None:
    """Break process `broken` at point 1, 2, 3, ... until the save gets to its end, or something is wrong."""
    for at in itertools.count(1):
        if story.problems:
            return
        story.fresh()
        both = [
            started(story.run, rank, Faults(kind, at) if rank == broken else Faults("none", 0))
            for rank in range(PROCESSES)
        ]
        endings = [ended(*each) for each in both]
        ending, message, struck = endings[broken]
        other = endings[1 - broken]
        if not struck:
            if {ending, other[0]} != {"done"}:
                story.problems.append(f"{kind} at {at} of process {broken} never struck: {endings}")
            return
        story.outcomes["points"] += 1
        where = f"{kind} at {at} of process {broken}"
        expected = {"killed": "killed", "short": "done"}.get(kind, "error")
        # Failing to make a folder that the other one has made is no failure.
        fine = ending == expected or (kind == "failed" and ending == other[0] == "done")
        if not fine or other[0] not in ("done", "error"):
            story.problems.append(f"{where}: ended with {ending}: {message}; the other with {other}")
        # The first process has looked at the whole; that the second is done says only that it was all there.
        try:
            story.check_checkpoint(where, done="done" in (ending, other[0]))
        except CheckpointError as error:
            story.problems.append(f"{where}: {error}")


def tried(scratch: Path, twin: str, faults: list[str]) -> dict[str, Any]:
    """faults: each `KIND of RANK`."""
    story = Story(scratch)
    patch = pytest.MonkeyPatch()  # for the rest of this process
    if twin == "nobody is waited for":
        patch.setattr(
            sharded, "_everybodys", lambda work, place, progress: [read_json(sharded._report(work, 0))]
        )
    elif twin == "a part is taken back":
        # What a process does whose last flush fails after it has told the first one that its part is there.
        patch.setattr(sharded, "_has_failed", lambda work, place: True)
        patch.setattr(sharded, "_tell", write_text)
    else:
        assert twin == "nothing", twin
    for kind, _, rank in (fault.partition(" of ") for fault in faults):
        enumerate_points(story, kind, int(rank))
    return {**story.outcomes, "problems": story.problems}


def main(scratch: Path, cases: dict[str, tuple[str, list[str]]]) -> None:
    """cases: by name, the twin and the faults of each; one line of JSON a case, each from a child of its own."""
    torch.set_num_threads(1)
    assert default_tokenizer().fingerprint
    patch = pytest.MonkeyPatch()  # for the rest of this process
    patch.setattr(saver, "local_rows", half_of_each)
    patch.setattr(sharded, "_PAUSE", 0.002)
    for name, (twin, faults) in cases.items():
        child = os.fork()
        if child == 0:
            print(json.dumps({name: tried(scratch / name, twin, faults)}), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
