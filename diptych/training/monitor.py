"""What a run shows while it goes on: a bar on a terminal, JSON lines, TensorBoard."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diptych.atomic import write_text
from diptych.data.sources.stray_bytes import utf8_address
from diptych.training.saving.layout import METRICS

# Share of the time in which steps wait for data, from which on a faster machine would not help.
DATA_BOUND = 0.2
_SMOOTHING = 0.95


class Monitor:
    """A context in which the steps of a run are shown and recorded.

    Each record goes as one line into `metrics.jsonl`, and into TensorBoard's event files where its package is
    installed. Lines after the step that a run resumes from are dropped first: the steps are done again.
    """

    def __init__(
        self,
        run: Path,
        total: int,
        resumed: int,
        chance: float | None,
        console: Console,
        *,
        writes: bool = True,
    ) -> None:
        self._run = run
        self._total = total
        self._resumed = resumed
        self._chance = chance
        self._console = console
        self._writes = writes  # whether this process keeps the log; one of several does
        self._smooth: float | None = None
        self._file: TextIO | None = None
        self._board: Any = None
        self._addresses = contextlib.ExitStack()
        self._bar: Progress | None = None
        self._bar_task = TaskID(0)

    def __enter__(self) -> "Monitor":
        if not self._writes:
            return self
        metrics = self._run / METRICS
        kept: list[str] = []
        if metrics.exists():
            kept = [
                line for line in metrics.read_text("utf-8").splitlines() if _step_of(line) <= self._resumed
            ]
        write_text(metrics, "".join(f"{line}\n" for line in kept))
        self._file = metrics.open("a", encoding="utf-8")
        self._board = _event_writer(self._addresses.enter_context(utf8_address(self._run)), self._resumed)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.description}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._bar.start()
            self._bar_task = self._bar.add_task("", total=self._total, completed=self._resumed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        self._addresses.close()

    def step(self, step: int, record: Mapping[str, float]) -> None:
        """Move the bar by one optimizer step."""
        loss = record["loss"]
        if not math.isfinite(loss):
            return
        before = loss if self._smooth is None else self._smooth
        self._smooth = _SMOOTHING * before + (1 - _SMOOTHING) * loss
        if self._bar is not None:
            bound = "data-bound" if record["data_share"] >= DATA_BOUND else "compute-bound"
            guessing = "" if self._chance is None else f" (chance {self._chance:.2f})"
            text = f"loss {self._smooth:.3f}{guessing}  {record['samples_per_second']:.0f} pairs/s, {bound}"
            self._bar.update(self._bar_task, completed=step, description=text)

    def record(self, step: int, record: Mapping[str, Any]) -> None:
        """Write one line of the log; numbers also go to TensorBoard."""
        if self._file is None:
            return
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self._file.write(json.dumps({"step": step, **known}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(name, value, step)
        if self._bar is None:
            shown = "  ".join(
                f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, int | float)
            )
            self._console.print(
                f"step {step}/{self._total}  {shown}",
                markup=False,
                emoji=False,
                highlight=False,
                soft_wrap=True,
            )

    def sync(self) -> None:
        """Put what was recorded on the disk, past what a kill or a power cut takes along."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def say(self, message: str) -> None:
        """Print a line for the person who watches."""
        self._console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _step_of(line: str) -> float:
    # A line that a crash cut short is not a record; it is dropped with those that are done again.
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _event_writer(run: str, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        return None
    return SummaryWriter(os.path.join(run, "tensorboard"), purge_step=step + 1)
