"""Saving a run while it goes on, and deleting old checkpoints without ever losing the last good one."""

import errno
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from torch import Tensor

from diptych.errors import CheckpointError
from diptych.training.saving.layout import CHECKPOINTS, checkpoints
from diptych.training.saving.run_state import newest_whole
from diptych.weights.checkpoint import Description, TrainingState, verify_checkpoint, write_checkpoint
from diptych.weights.folders import Progress, remove_folder, sweep
from diptych.weights.pieces import Rows
from diptych.weights.sharded import Place, ShardedState, local_rows, write_sharded

_MEGABYTE = 1_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What one checkpoint is to hold."""

    weights: Mapping[str, Tensor]
    description: Description
    state: TrainingState | None = None  # without it the run cannot be resumed from here


@dataclass(frozen=True)
class _Copy:
    """A snapshot in the host's memory, which no later step changes, and the way to write it."""

    write: Callable[[Path, Progress], Path]
    bytes: int


class Saver:
    """A context that writes the checkpoints of a run in one background thread.

    A save that failed raises its `CheckpointError` at the next `save`, or at `close`. At the end of the context
    the last save is waited for; after an interrupt it is abandoned, which leaves the checkpoints before it.

    run: the folder of the run; what killed saves have left in it is removed.
    keep: after each save, all but the newest `keep` whole checkpoints are deleted; also at the start, for a save that
        was killed before it could. A checkpoint counts as whole once its files have been read back and have their
        SHA-256. Reading back finds what went wrong on the way to the system's memory of the disk, not what the disk
        will forget.
    place: of this process, where the tensors of the model are shards: every process has a Saver then, and calls
        `save` for the same steps. Without it, one process saves whole tensors.
    """

    def __init__(self, run: Path, keep: int, place: Place | None = None) -> None:
        self._run = run
        self._keep = keep
        self._place = place
        self._leads = place is None or place.rank == 0
        self._whole: set[Path] = set()
        self._thread = ThreadPoolExecutor(1, "save")
        self._pending: Future[None] | None = None
        self._abandoned = threading.Event()
        if self._leads:
            for folder in (run, run / CHECKPOINTS):
                sweep(folder)
            self._delete_old()

    def save(self, folder: Path, snapshot: Snapshot) -> None:
        """Copy `snapshot`, and begin to write it into `folder`; waits for the save before it."""
        self._join()
        self._pending = self._thread.submit(self._save, folder, self._copy(snapshot))

    def close(self) -> None:
        """Wait for the last save."""
        try:
            self._join()
        finally:
            self._abandon()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not issubclass(kind, Exception):
            self._abandon()
        else:
            self._finish_after(error)

    def _finish_after(self, error: BaseException | None) -> None:
        """Let the last save end; the error that the context ends with stays the first one."""
        try:
            self.close()
        except CheckpointError as second:
            if error is not None:
                error.add_note(f"besides, the last save failed: {second}")

    def _join(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _abandon(self) -> None:
        self._abandoned.set()
        self._thread.shutdown()

    def _copy(self, snapshot: Snapshot) -> _Copy:
        return _copy_of_whole(snapshot) if self._place is None else _copy_of_shards(snapshot, self._place)

    def _save(self, folder: Path, copy: _Copy) -> None:
        """Save; runs in the thread."""
        try:
            if self._leads:
                self._make_way(folder)
            copy.write(folder, self._progress)
            if self._leads:
                verify_checkpoint(folder, self._progress)
                self._whole.add(folder)
                self._delete_old()
        except OSError as error:
            raise CheckpointError(self._remedy(folder, copy, error)) from error

    def _make_way(self, folder: Path) -> None:
        if folder in checkpoints(self._run) and not self._is_whole(folder):
            # The run went back to before this step because its checkpoint is damaged.
            remove_folder(folder)
        self._whole.discard(folder)

    def _delete_old(self) -> None:
        found = checkpoints(self._run)
        if len(found) <= self._keep:
            return  # whichever are whole, none is too many: they need not be read
        whole = 0
        for folder in reversed(found):
            if whole >= self._keep:
                remove_folder(folder)
            elif self._is_whole(folder):
                whole += 1

    def _is_whole(self, folder: Path) -> bool:
        if folder not in self._whole:
            try:
                verify_checkpoint(folder, self._progress)
            except (CheckpointError, OSError):
                return False
            self._whole.add(folder)
        return True

    def _progress(self, _: int) -> None:
        if self._abandoned.is_set():
            raise _AbandonedError

    def _remedy(self, folder: Path, copy: _Copy, error: OSError) -> str:
        last, _ = newest_whole(self._run)
        good = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
        if error.errno not in _FULL:
            return f"{folder}: could not be saved ({error.strerror or error}); {good}: check the disk, then --resume"
        needed, free = copy.bytes, shutil.disk_usage(self._run).free
        missing = max(1, math.ceil((needed - free) / _MEGABYTE))
        return (
            f"{folder}: disk full ({error.strerror}): a checkpoint needs {math.ceil(needed / _MEGABYTE)} MB and "
            f"{free // _MEGABYTE} MB are free; {good}: free at least {missing} MB, then go on with --resume"
        )


class _AbandonedError(Exception):
    """Nobody waits for this save any more."""


def _copy_of_whole(snapshot: Snapshot) -> _Copy:
    weights = {name: _copied(tensor) for name, tensor in snapshot.weights.items()}
    state = snapshot.state
    if state is not None:
        tensors = {name: _copied(tensor) for name, tensor in state.tensors.items()}
        state = TrainingState(tensors, dict(state.values))

    def write(folder: Path, progress: Progress) -> Path:
        return write_checkpoint(folder, weights, snapshot.description, state, progress)

    return _Copy(write, _bytes(weights) + (_bytes(state.tensors) if state is not None else 0))


def _copy_of_shards(snapshot: Snapshot, place: Place) -> _Copy:
    weights = _copied_rows(snapshot.weights, place)
    state = None
    if snapshot.state is not None:
        state = ShardedState(_copied_rows(snapshot.state.tensors, place), dict(snapshot.state.values))

    def write(folder: Path, progress: Progress) -> Path:
        return write_sharded(folder, place, weights, snapshot.description, state, progress=progress)

    pieces = [*weights.values(), *(state.tensors.values() if state is not None else ())]
    return _Copy(write, sum(rows.values.nbytes for rows in pieces))


def _copied_rows(tensors: Mapping[str, Tensor], place: Place) -> dict[str, Rows]:
    mine = local_rows(tensors, place.rank)
    return {name: replace(rows, values=_copied(rows.values)) for name, rows in mine.items()}


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
