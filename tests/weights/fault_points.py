"""Breaks a save at each of its points, in forked children, and looks at what is left.

Run by `test_faults.py` in a process of its own, so that the forks start from one without threads. The points are
every raw write (before it and in its middle), every fsync, every new, renamed and removed name. At a point the
process is killed, or the system says that the disk is full (and stays full), or that it has failed once, or writes
less than it was given. A kill leaves the system's memory of the disk, so it is no power cut: for that the order of
writes, flushes and renames is recorded and checked.

A twin breaks the writer itself, to show that this would be seen.
"""

import builtins
import contextlib
import errno
import functools
import io
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diptych import atomic
from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.image_model import ImageModel
from diptych.tokenizer import default_tokenizer
from diptych.training.saving.layout import checkpoint_folder, checkpoints
from diptych.training.saving.run_state import newest_whole
from diptych.training.saving.saver import Saver, Snapshot
from diptych.weights import checkpoint, folders
from diptych.weights.checkpoint import (
    Description,
    TrainingState,
    load_checkpoint,
    load_state,
    verify_checkpoint,
    write_checkpoint,
)
from diptych.weights.folders import remove_folder, sweep
from tests.weights.small_clip import same_weights, small_clip

TINY = Architecture(
    embed_dim=8,
    image=VisionTransformer(resolution=16, patch=8, width=32, layers=1, heads=1),
    text=TextTransformer(width=16, layers=1, heads=1, vocab_size=50, context_length=6),
)
ERRORS = {"full": errno.ENOSPC, "failed": errno.EIO}
KEEP = 2


class Faults:
    """Counts the points of this process, and breaks point number `at` in the way that `kind` says.

    With `at` 0 nothing breaks. `events` lists what was done, in order: (verb, path, path or nothing).
    """

    def __init__(self, kind: str, at: int) -> None:
        self.kind, self.at, self.count, self.struck = kind, at, 0, False
        self.events: list[tuple[str, str, str]] = []

    def point(self, grows: bool) -> None:
        """grows: whether what follows needs room on the disk."""
        if self.kind == "short":
            return
        self.count += 1
        if self.count == self.at or (self.struck and self.kind == "full" and grows):
            self.struck = True
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(ERRORS[self.kind], os.strerror(ERRORS[self.kind]))

    def cut(self, size: int) -> int:
        """How many of `size` bytes a raw write takes."""
        if self.kind != "short" or size < 2:
            return size
        self.count += 1
        self.struck |= self.count == self.at
        return size // 2 if self.count == self.at else size

    def install(self) -> None:
        """Puts the points under everything that Python writes with, in this process."""
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "chmod"):
            self._wrap(os, name, getattr(os, name), grows=name == "mkdir")
        self._wrap(atomic, "_exchange", atomic._exchange, grows=False)
        # Nothing here outlives the machine, so nothing needs to wait for its disk.
        self._wrap(os, "fsync", lambda _: None, grows=True)
        real = io.open
        faults = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")
                faults.events.append(("write", real_path(self.fileno()), ""))
                faults.point(grows=True)
                half = len(view) // 2
                if half and faults.kind != "short":
                    super().write(view[:half])
                    faults.point(grows=True)
                    return half + super().write(view[half:])
                return super().write(view[: faults.cut(len(view))])

        def opened(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if mode not in ("wb", "a"):
                return real(file, mode, *rest, **options)
            written = io.BufferedWriter(File(file, mode[0]))
            return written if mode == "wb" else io.TextIOWrapper(written, encoding="utf-8")

        io.open = builtins.open = opened

    def _wrap(self, home: Any, name: str, real: Callable[..., Any], grows: bool) -> None:
        def wrapped(*args: Any, **options: Any) -> Any:
            names = 1 if name in ("fsync", "mkdir", "unlink", "rmdir", "chmod") else 2
            paths = [real_path(place, options.get("dir_fd")) for place in args[:names]]
            first, second, *_ = *paths, ""
            self.events.append((name.strip("_"), first, second))
            self.point(grows)
            return real(*args, **options)

        setattr(home, name, wrapped)


def real_path(place: Any, folder: int | None = None) -> str:
    """Of an open file, or of a name, which may be one inside an open folder."""
    if isinstance(place, int):
        return os.readlink(f"/proc/self/fd/{place}")
    return os.path.join(os.getcwd() if folder is None else real_path(folder), place)


def order_violations(events: list[tuple[str, str, str]]) -> list[str]:
    """What a power cut could lose: names that were given before their contents were on the disk, and so on."""
    dirty: set[str] = set()  # files and folders whose last change is not on the disk
    found = []
    for verb, first, second in events:
        parent = os.path.dirname(first)
        if verb in ("write", "mkdir"):
            dirty |= {first, parent}
        elif verb == "fsync":
            dirty.discard(first)
        elif verb in ("rename", "exchange"):
            found += [f"{first} renamed before {name}" for name in sorted(dirty) if inside(name, first)]
            dirty |= {parent, os.path.dirname(second)}
        elif verb in ("unlink", "rmdir"):
            # What is removed may be all that is left, if the names of what replaces it are not on the disk.
            found += [f"{first} removed before {name}" for name in sorted(dirty) if not inside(name, parent)]
    return found + [f"{name} never reached the disk" for name in sorted(dirty) if os.path.exists(name)]


def inside(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


@functools.cache
def model_of(step: int) -> ImageModel:
    return small_clip(TINY, seed=step)


def snapshot_of(step: int) -> Snapshot:
    moments = {f"exp_avg.{name}": value * step for name, value in model_of(step).state_dict().items()}
    return Snapshot(
        weights=model_of(step).state_dict(),
        description=Description(architecture=plain(TINY), preprocessing=plain(Preprocess(16))),
        state=TrainingState(moments, {"step": step}),
    )


class Story:
    """A run with whole checkpoints after the steps 1 and 2 and a model, in which something is saved at step 3."""

    def __init__(self, scratch: Path) -> None:
        self.first = scratch / "first"
        for step in (1, 2):
            self.write(checkpoint_folder(self.first, step), step)
        self.write(self.first / "model", 1)
        self.run = scratch / "run"
        self.problems: list[str] = []
        self.outcomes = {"points": 0, "old": 0, "new": 0}

    def write(self, folder: Path, step: int) -> None:
        snapshot = snapshot_of(step)
        write_checkpoint(folder, snapshot.weights, snapshot.description, snapshot.state)

    def fresh(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.first, self.run)

    def save_checkpoint(self) -> None:
        with Saver(self.run, KEEP) as saver:
            saver.save(checkpoint_folder(self.run, 3), snapshot_of(3))

    def save_model(self) -> None:
        with Saver(self.run, KEEP) as saver:
            saver.save(self.run / "model", snapshot_of(3))

    def check_checkpoint(self, where: str, done: bool) -> None:
        """The newest good one loads, all that has a final name is whole, and there are at least two."""
        self.check_names(where)
        newest, damaged = newest_whole(self.run)
        if newest is None or damaged or len(checkpoints(self.run)) < KEEP:
            self.problems.append(
                f"{where}: left {[folder.name for folder in checkpoints(self.run)]}, {damaged} damaged"
            )
            return
        step = int(newest.name[-8:])
        self.outcomes["new" if step == 3 else "old"] += 1
        if step < 2 or (done and step != 3):
            self.problems.append(f"{where}: the newest is {newest}")
        self.check_contents(where, newest, step)
        if load_state(newest)[1]["step"] != step:
            self.problems.append(f"{where}: the state of {newest} is of another step")

    def check_model(self, where: str, done: bool) -> None:
        self.check_names(where)
        step = 3 if same_weights(load_checkpoint(self.run / "model")[0], model_of(3)) else 1
        self.outcomes["new" if step == 3 else "old"] += 1
        if done and step != 3:
            self.problems.append(f"{where}: the old model is there after a save that ended well")
        self.check_contents(where, self.run / "model", step)

    def check_contents(self, where: str, folder: Path, step: int) -> None:
        if not same_weights(load_checkpoint(folder)[0], model_of(step)):
            self.problems.append(f"{where}: {folder} has other weights than were saved")

    def check_names(self, where: str) -> None:
        """What bears a final name is whole as it lies there; a start sweeps the rest, one folder or none."""
        for folder in (*checkpoints(self.run), self.run / "model"):
            try:
                verify_checkpoint(folder)
            except CheckpointError as error:
                self.problems.append(f"{where}: {error}")
        stray = [path.name for path in self.run.rglob(".*") if path.is_dir()]
        if len(stray) > 1:
            self.problems.append(f"{where}: strays {stray}")
        for parent in (self.run, self.run / "checkpoints"):
            sweep(parent)
        if stray := [path.name for path in self.run.rglob(".*")]:
            self.problems.append(f"{where}: {stray} after a sweep")

    def enumerate(self, kind: str, act: Callable[[], None], check: Callable[[str, bool], None]) -> None:
        """Break at point 1, 2, 3, ... until the save gets to its end unbroken, or something is wrong."""
        for at in itertools.count(1):
            if self.problems:
                return
            self.fresh()
            ending, message = forked(kind, at, act)
            if ending == "unbroken":
                return
            self.outcomes["points"] += 1
            where = f"{kind} at {at}"
            # A short write is no fault for the one who asks: the rest is written with the next one.
            if ending != {"killed": "killed", "short": "done"}.get(kind, "error"):
                self.problems.append(f"{where}: ended with {ending}: {message}")
            check(where, ending == "done")
            newest, _ = newest_whole(self.run)
            if ending == "error" and "the last good checkpoint is " + str(newest) not in message:
                self.problems.append(f"{where}: {message!r} does not name {newest}")


def forked(kind: str, at: int, act: Callable[[], None]) -> tuple[str, str]:
    """How a child ended in which point `at` was broken: killed, error, done (though broken) or unbroken."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ending, message = "done", ""
        faults = Faults(kind, at)
        faults.install()
        try:
            act()
        except CheckpointError as error:
            ending, message = "error", str(error)
        except BaseException as error:
            ending, message = "crash", repr(error)
        os.write(writer, json.dumps([ending if faults.struck else "unbroken", message]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if status == signal.SIGKILL:
        return "killed", ""
    ending, message = json.loads(said)
    return ending, message


def recorded(act: Callable[[], None]) -> list[str]:
    """The violations of the order in a save that is not broken."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        faults = Faults("none", 0)
        faults.install()
        act()
        os.write(writer, json.dumps(order_violations(faults.events)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        violations: list[str] = json.loads(pipe.read())
    os.wait()
    return violations


@contextlib.contextmanager
def straight_into_place(target: Path, marker: str) -> Iterator[Path]:
    """A broken `new_folder`: no temporary folder, no rename."""
    target.mkdir(parents=True, exist_ok=True)
    yield target


def break_the_writer(twin: str) -> None:
    """Break it for the rest of this process."""
    patch = pytest.MonkeyPatch()
    if twin == "no rename":
        patch.setattr(checkpoint, "new_folder", straight_into_place)
    elif twin == "no fsync of files":
        patch.setattr(folders, "os", SimpleNamespace(**{**vars(os), "fsync": lambda file: None}))
    elif twin == "no fsync of folders":
        for module in (folders, atomic):
            patch.setattr(module, "sync_folder", lambda folder: None)
    elif twin == "delete first":

        def early(saver: Saver, folder: Path) -> None:
            for older in checkpoints(saver._run):
                remove_folder(older)

        patch.setattr(Saver, "_make_way", early)
    elif twin == "two renames":
        patch.setattr(atomic, "_exchange", lambda one, other: False)
    else:
        assert twin == "nothing", twin


def tried(scratch: Path, twin: str, faults: list[str]) -> dict[str, Any]:
    """faults: each `KIND of WHAT`, where WHAT is a checkpoint (a new one) or a model (in place of an older one)."""
    story = Story(scratch)
    break_the_writer(twin)
    story.fresh()
    order = [*recorded(story.save_checkpoint), *recorded(story.save_model)]
    acts = {
        "checkpoint": (story.save_checkpoint, story.check_checkpoint),
        "model": (story.save_model, story.check_model),
    }
    for kind, _, what in (fault.partition(" of ") for fault in faults):
        story.enumerate(kind, *acts[what])
    return {**story.outcomes, "problems": story.problems, "order": order}


def main(scratch: Path, cases: dict[str, tuple[str, list[str]]]) -> None:
    """cases: by name, the twin and the faults of each; one line of JSON a case, each from a child of its own."""
    torch.set_num_threads(1)
    assert default_tokenizer().fingerprint
    for name, (twin, faults) in cases.items():
        child = os.fork()
        if child == 0:
            print(json.dumps({name: tried(scratch / name, twin, faults)}), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
