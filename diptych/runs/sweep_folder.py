"""The folder of a sweep: one file that says what was asked and what came of each trial, and a run a trial.

sweep.json    what was asked for, and every trial with its settings and metrics
trial-0000    an ordinary run
trial-0001    ...
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diptych.atomic import write_text
from diptych.config import plain
from diptych.errors import SettingsError
from diptych.runs.run_summary import SWEEP
from diptych.training.saving.layout import METRICS

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    settings: section.key and value of what differs from the recipe.
    metrics: as `RunReport.final`.
    """

    number: int
    settings: Mapping[str, Any]
    status: Literal["waiting", "done", "failed"] = "waiting"
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def folder(self) -> str:
        """The name of the trial's folder inside the sweep's."""
        return f"trial-{self.number:04d}"


def ranked(trials: Iterable[Trial], metric: str, goal: str) -> list[Trial]:
    """Return the trials that have the metric, the best first, then the others by number."""
    sign = 1 if goal == "minimise" else -1

    def place(trial: Trial) -> tuple[bool, float, int]:
        measured = trial.status == "done" and metric in trial.metrics
        return not measured, sign * trial.metrics[metric] if measured else 0.0, trial.number

    return sorted(trials, key=place)


def read_sweep(folder: str | Path) -> list[Trial]:
    """Return the trials of a sweep by number.

    Raises:
        SettingsError: `sweep.json` is not the file of a sweep, or of another version.
    """
    file = Path(folder) / SWEEP
    try:
        values = json.loads(file.read_text("utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise SettingsError(
                f"{file}: written by another version of Diptych; start a new sweep with --out"
            )
        return [Trial(**trial) for trial in values["trials"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{file}: not the file of a sweep ({error}); name another folder") from None


def best_trials(folder: str | Path, count: int = 8) -> list[Path]:
    """Return the folders of the best trials that have a log, by the metric that was last asked for.

    Raises:
        SettingsError: no trial has begun.
    """
    trials = read_sweep(folder)
    asked = json.loads((Path(folder) / SWEEP).read_text("utf-8"))
    found = [
        Path(folder) / trial.folder
        for trial in ranked(trials, asked["metric"], asked["goal"])
        if (Path(folder) / trial.folder / METRICS).is_file()
    ]
    if not found:
        raise SettingsError(f"{folder}: no trial of this sweep has begun; start it with diptych sweep")
    return found[:count]


def write_sweep(
    folder: Path, asked: Mapping[str, Any], metric: str, goal: str, trials: Sequence[Trial]
) -> None:
    """Write `sweep.json`. asked: what must stay the same for the sweep to go on."""
    values = {
        "format_version": FORMAT_VERSION,
        "asked": asked,
        "metric": metric,
        "goal": goal,
        "trials": [plain(trial) for trial in trials],
    }
    write_text(folder / SWEEP, json.dumps(values, indent=2) + "\n")
