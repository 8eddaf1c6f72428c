"""Saving a run while it goes on, and deleting old checkpoints without ever losing the last good one."""

import errno
import math
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from torch import Tensor

from diptych.errors import CheckpointError
from diptych.training.state import checkpoints, newest_whole
from diptych.weights.checkpoint import Description, TrainingState, verify_checkpoint, write_checkpoint
from diptych.weights.folders import remove_folder, sweep

_MEGABYTE = 1_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What one checkpoint is to hold."""

    weights: Mapping[str, Tensor]
    description: Description
    state: TrainingState | None = None  # without it the run cannot be resumed from here

    def on_host(self) -> "Snapshot":
        """A copy in the host's memory, which no later step changes."""
        state = self.state
        if state is not None:
            state = TrainingState(_copied(state.tensors), dict(state.values))
        return replace(self, weights=_copied(self.weights), state=state)

    @property
    def bytes(self) -> int:
        state = self.state.tensors if self.state is not None else {}
        return sum(tensor.nbytes for tensor in (*self.weights.values(), *state.values()))


class Saver:
    """A context that writes the checkpoints of a run in one background thread.

    A save that failed raises its `CheckpointError` at the next `save`, or at `close`. At the end of the context
    the last save is waited for; after an interrupt it is abandoned, which leaves the checkpoints before it.

    run: the folder of the run; what killed saves have left in it is removed.
    keep: after each save, all but the newest `keep` whole checkpoints are deleted. A checkpoint counts as whole once
        its files have been read back and have their SHA-256. Reading back finds what went wrong on the way to the
        system's memory of the disk, not what the disk will forget.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self._run = run
        self._keep = keep
        self._whole: set[Path] = set()
        self._thread = ThreadPoolExecutor(1, "save")
        self._pending: Future[None] | None = None
        self._abandoned = threading.Event()
        for folder in (run, run / "checkpoints"):
            sweep(folder)

    def save(self, folder: Path, snapshot: Snapshot) -> None:
        """Copy `snapshot`, and begin to write it into `folder`; waits for the save before it."""
        self._join()
        self._pending = self._thread.submit(self._save, folder, snapshot.on_host())

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

    def _save(self, folder: Path, snapshot: Snapshot) -> None:
        """Runs in the thread."""
        try:
            self._write(folder, snapshot)
            verify_checkpoint(folder, self._progress)
            self._whole.add(folder)
            self._delete_old()
        except OSError as error:
            raise CheckpointError(self._remedy(folder, snapshot, error)) from error

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        if folder in checkpoints(self._run) and not self._is_whole(folder):
            # The run went back to before this step because its checkpoint is damaged.
            remove_folder(folder)
        self._whole.discard(folder)
        write_checkpoint(folder, snapshot.weights, snapshot.description, snapshot.state, self._progress)

    def _delete_old(self) -> None:
        whole = 0
        for folder in reversed(checkpoints(self._run)):
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

    def _remedy(self, folder: Path, snapshot: Snapshot, error: OSError) -> str:
        last, _ = newest_whole(self._run)
        good = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
        if error.errno not in _FULL:
            return f"{folder}: could not be saved ({error.strerror or error}); {good}: check the disk, then --resume"
        needed, free = snapshot.bytes, shutil.disk_usage(self._run).free
        missing = max(1, math.ceil((needed - free) / _MEGABYTE))
        return (
            f"{folder}: disk full ({error.strerror}): a checkpoint needs {math.ceil(needed / _MEGABYTE)} MB and "
            f"{free // _MEGABYTE} MB are free; {good}: free at least {missing} MB, then go on with --resume"
        )


class _AbandonedError(Exception):
    """Nobody waits for this save any more."""


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
