"""Read a run back from its folder; `engine.py` says what is there."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych.errors import DataError
from diptych.training.approaches import APPROACHES
from diptych.training.approaches.approach import Approach
from diptych.training.best import Best, best_of
from diptych.training.monitor import DATA_BOUND
from diptych.training.saving.layout import METRICS, MODEL, RECIPE

State = Literal["done", "running", "stopped"]
Record = Mapping[str, float]

# What the engine writes of every logged step; any other key is a metric of an evaluation.
STEP_KEYS = (
    "step",
    "samples",
    "loss",
    "accuracy",
    "gradient_norm",
    "learning_rate",
    "logit_scale",
    "logit_bias",
    "samples_per_second",
    "data_share",
    "seconds",
)
SWEEP = "sweep.json"  # in the folder of a sweep, which holds runs
_QUIET = 300.0  # seconds without a new line after which a run counts as stopped
_LAST_PART = 0.1  # of the run's steps, over which a noisy figure is averaged


@dataclass(frozen=True)
class RunReport:
    """One run.

    recipe: the resolved settings, empty where the folder has none.
    records: the logged steps in order, numbers only; a key may be missing from any of them.
    total: optimizer steps asked for, None where the recipe does not say.
    damaged: lines of the log that could not be read.
    not_finite: numbers of the log that were infinite or no number, by name; they are in no record.
    """

    folder: Path
    recipe: Mapping[str, Any]
    records: Sequence[Record]
    state: State
    total: int | None
    damaged: int
    not_finite: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def step(self) -> int:
        """The last logged step; 0 before the first."""
        return int(self.records[-1]["step"]) if self.records else 0

    @property
    def evaluations(self) -> list[str]:
        """The names of what was evaluated, in the order of the log."""
        return list(
            dict.fromkeys(name for record in self.records for name in record if name not in STEP_KEYS)
        )

    @property
    def chance_loss(self) -> float | None:
        """The loss of guessing; None if more than the batch size decides it."""
        batch = self.recipe.get("training", {}).get("batch_size")
        guessing = None if self.approach is None else self.approach.chance_loss
        return guessing(batch) if guessing is not None and isinstance(batch, int) and batch > 1 else None

    @property
    def approach(self) -> Approach[Any] | None:
        """The approach that the recipe names; None if this version does not know it."""
        name = self.recipe.get("objective", {}).get("name", next(iter(APPROACHES)))
        return APPROACHES.get(str(name))

    @property
    def best(self) -> Best | None:
        """The evaluation whose weights are kept; None if the recipe names no metric, or it was not measured."""
        metric = self.recipe.get("evaluation", {}).get("best")
        return best_of(metric, self.curve(metric)) if isinstance(metric, str) else None

    @property
    def captioned(self) -> str | None:
        """The held-out images whose captions the page shows; None if the recipe names none."""
        place = self.recipe.get("evaluation", {}).get("captions")
        return place if isinstance(place, str) else None

    @property
    def data_share(self) -> float | None:
        """The share of the time that the steps waited for data, 0..1, over the last quarter of the run."""
        return self.mean("data_share", 0.25)

    @property
    def verdict(self) -> Literal["data-bound", "compute-bound"] | None:
        """What limits the speed of the run; None if the log does not say."""
        share = self.data_share
        if share is None:
            return None
        return "data-bound" if share > DATA_BOUND else "compute-bound"

    @property
    def seconds_left(self) -> float | None:
        """The seconds until the last step, at the pace of the last records; None if that is not known."""
        timed = [(record["step"], record["seconds"]) for record in self.records if "seconds" in record][-20:]
        if self.total is None or not timed:
            return None
        # The seconds of a log count from the start of the run: one record is a pace too.
        (first, started), (last, now) = timed[0] if len(timed) > 1 else (0.0, 0.0), timed[-1]
        return max(0, self.total - self.step) * (now - started) / (last - first) if last > first else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of every record that has the name."""
        return [(record["step"], record[name]) for record in self.records if name in record]

    def mean(self, name: str, part: float = _LAST_PART) -> float | None:
        """Return the mean over the last `part` of the steps, at least one record; None if there is none."""
        curve = self.curve(name)
        if not curve:
            return None
        start = min(curve[-1][0], (1 - part) * self.step)
        values = [value for step, value in curve if step >= start]
        return math.fsum(values) / len(values)

    def final(self) -> dict[str, float]:
        """Return the final value of every metric: `mean` for the noisy loss and accuracy, the last one for others."""
        last = {name: value for record in self.records for name, value in record.items()}
        means = {name: self.mean(name) for name in ("loss", "accuracy")}
        return last | {name: value for name, value in means.items() if value is not None}


def read_run(folder: str | Path, now: float | None = None) -> RunReport:
    """Read the run in `folder`, whatever its age and however it ended; what is missing is left out.

    now: seconds since 1970, for telling a running run from a stopped one; the clock's when not given.
    Raises DataError where the folder holds no run.
    """
    run = Path(folder)
    log, asked = run / METRICS, run / RECIPE
    if not log.is_file() and not asked.is_file():
        raise DataError(
            f"{run}: holds no run (no recipe.json, no metrics.jsonl); expected a folder that `diptych train` made"
        )
    recipe = _recipe(asked)
    records, damaged, not_finite = read_records(log) if log.is_file() else ([], 0, {})
    total = _total_steps(recipe)
    step = int(records[-1]["step"]) if records else 0
    quiet = (time.time() if now is None else now) - (log if log.is_file() else asked).stat().st_mtime
    return RunReport(run, recipe, records, _state(run, step, total, quiet), total, damaged, not_finite)


def read_records(log: Path) -> tuple[list[dict[str, float]], int, dict[str, int]]:
    """Return the records of a log by step, the number of damaged lines, and how often each name was not finite.

    A run that was killed may have cut its last line short; a step that was done again counts as it was last.
    """
    records: dict[int, dict[str, float]] = {}
    damaged = 0
    not_finite: dict[str, int] = {}
    for line in log.read_text("utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError, OverflowError):
            damaged += 1
            continue
        record: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                record[name] = value
            else:
                not_finite[name] = not_finite.get(name, 0) + 1
        records[step] = record
    return [records[step] for step in sorted(records)], damaged, not_finite


def _recipe(asked: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(asked.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _total_steps(recipe: Mapping[str, Any]) -> int | None:
    # Not through `Recipe`: a run that an older version made may have settings that this one no longer knows.
    training = recipe.get("training", {})
    if isinstance(training.get("steps"), int):
        return int(training["steps"])
    samples, batch = training.get("samples"), training.get("batch_size")
    return samples // batch if isinstance(samples, int) and isinstance(batch, int) and batch else None


def _state(run: Path, step: int, total: int | None, quiet: float) -> State:
    finished = (run / MODEL / "diptych.json").is_file() and (total is None or step >= total)
    if finished:
        return "done"
    return "running" if quiet < _QUIET else "stopped"
