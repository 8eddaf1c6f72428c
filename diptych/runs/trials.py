"""Many runs of one recipe with other settings: a grid, and random draws.

The paper's settings were found so: "a combination of grid searches, random search, and manual tuning on the
baseline ResNet-50 model when trained for 1 epoch" (Radford et al. 2021, section 2.5).

A sweep lies in one folder:

    sweep.json    what was asked for, and what each trial came to
    trial-0000    an ordinary run
    trial-0001    ...
"""

import itertools
import json
import math
import os
import shutil
import tomllib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from diptych.atomic import write_text
from diptych.config import plain
from diptych.errors import DiptychError, SettingsError
from diptych.runs.run_summary import STEP_KEYS, SWEEP, read_run
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.saving.layout import CHECKPOINTS, METRICS, RECIPE, RESULTS
from diptych.training.settings import Recipe

Goal = Literal["minimise", "maximise"]
# A recipe, the folder of its run, whether to go on with it, the device, and where to tell about it.
Runner = Callable[[Recipe, Path, bool, str, Console | None], object]

FORMAT_VERSION = 1


def engine_alone(recipe: Recipe, folder: Path, resume: bool, device: str, console: Console | None) -> None:
    """The runner that trains as the recipe says, and measures nothing on the way."""
    train(recipe, folder, resume=resume, device=device, console=console)


@dataclass(frozen=True)
class Grid:
    """A setting and the values that are tried."""

    key: str  # section.key
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A setting and the range it is drawn from: log-uniform where both ends are positive, else uniform."""

    key: str  # section.key
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn: both ends were written as such."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, chance: float) -> float:
        """The value at `chance` in 0..1 of the range."""
        # A whole number stands for the numbers that round to it, so that the ends are as likely as the others.
        margin = 0.5 if self.whole else 0.0
        low, high = self.low - margin, self.high + margin
        if low > 0:
            value = math.exp(math.log(low) + chance * (math.log(high) - math.log(low)))
        else:
            value = low + chance * (high - low)
        return min(max(round(value), self.low), self.high) if self.whole else float(f"{value:.4g}")


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
        """Its name inside the sweep's folder."""
        return f"trial-{self.number:04d}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is asked for.

    recipe, assignments: as `load_recipe` takes them; they hold for every trial.
    trials: how many; None is every point of the grid once. With ranges, trial i has point i of the grid (from the
        first again after the last) and draws of its own.
    """

    recipe: str
    assignments: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    ranges: tuple[Range, ...] = ()
    trials: int | None = None
    seed: int = 0
    metric: str = "loss"
    goal: Goal = "minimise"

    def plan(self) -> list[dict[str, Any]]:
        """The settings of each trial. More trials keep the ones before: a draw depends on seed, key and number."""
        keys = [*(grid.key for grid in self.grids), *(range_.key for range_ in self.ranges)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice or not keys:
            problem = f"{twice[0]!r} is swept twice" if twice else "there is nothing to sweep"
            raise SettingsError(f"{problem}; give each setting one --grid or one --random")
        names = [grid.key for grid in self.grids]
        points = [
            dict(zip(names, point, strict=True))
            for point in itertools.product(*(grid.values for grid in self.grids))
        ]
        if self.trials is not None and not self.ranges and self.trials > len(points):
            raise SettingsError(
                f"--trials {self.trials}: the grid has {len(points)} points; add values, or a --random range"
            )
        if self.trials is None and not self.grids:
            raise SettingsError("a sweep of random draws needs a number of them: --trials 20")
        count = self.trials if self.trials is not None else len(points)
        return [points[number % len(points)] | self._draws(number) for number in range(count)]

    def _draws(self, number: int) -> dict[str, float]:
        return {
            range_.key: range_.at(
                np.random.default_rng((self.seed, zlib.crc32(range_.key.encode()), number)).random()
            )
            for range_ in self.ranges
        }

    def recipe_of(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe of one trial."""
        swept = tuple(f"{key}={_toml(value)}" for key, value in settings.items())
        return load_recipe(self.recipe, (*self.assignments, *swept))


def parse_grid(text: str) -> Grid:
    """`section.key=value,value`; each value is read as TOML, and is a string where it is not."""
    key, values = _split(text, "--grid", "optimizer.learning_rate=1e-4,3e-4")
    try:
        found = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        found = [part.strip() for part in values.split(",")]
    if len({json.dumps(value, default=str) for value in found}) != len(found):
        raise SettingsError(f"--grid {text!r}: a value stands there twice")
    return Grid(key, tuple(found))


def parse_range(text: str) -> Range:
    """`section.key=low..high`."""
    key, ends = _split(text, "--random", "optimizer.weight_decay=0.01..0.5")
    try:
        low, high = (_number(end) for end in ends.split(".."))
    except ValueError:
        raise SettingsError(
            f"--random {text!r}: expected two numbers, such as optimizer.weight_decay=0.01..0.5"
        ) from None
    if not low < high:
        raise SettingsError(f"--random {text!r}: expected the smaller number first")
    return Range(key, low, high)


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    device: str = "cpu",
    runner: Runner = engine_alone,
    keep_best_only: bool = False,
    retry: bool = False,
    console: Console | None = None,
    tell: Callable[[Trial, int], None] = lambda trial, count: None,
) -> list[Trial]:
    """Run what is left of a sweep, and return its trials, the best first and the failed last.

    runner: what runs a trial: the engine, or the engine with what is before and after it, such as measurements.
    keep_best_only: delete the weights of every trial that is not the best so far; their logs stay.
    retry: run failed trials again; otherwise a failure is recorded and stays.
    tell: called with each trial as it ends, and with the number of all.

    A sweep that was killed goes on when it is called again: trials that are done are passed over, and the one that
    was running resumes from its last checkpoint. Raises SettingsError, before anything is run, where the settings
    of a trial cannot be used, and where the folder has a sweep of another recipe, other ranges or another seed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("a sweep runs its trials in one process; start it without torchrun")
    folder = Path(out)
    planned = sweep.plan()
    recipes = [sweep.recipe_of(settings) for settings in planned]
    _check_metric(sweep.metric, recipes)
    trials = _begin(folder, sweep, planned)
    for number, recipe in enumerate(recipes):
        if trials[number].status == "done" or (trials[number].status == "failed" and not retry):
            continue
        trials[number] = _run(
            trials[number],
            recipe,
            sweep.metric,
            folder,
            device=device,
            runner=runner,
            console=console,
        )
        _save(folder, sweep, trials)
        tell(trials[number], len(recipes))
        if keep_best_only:
            _delete_weights(folder, ranked(trials, sweep.metric, sweep.goal)[1:])
    return ranked(trials[: len(recipes)], sweep.metric, sweep.goal)


def ranked(trials: Iterable[Trial], metric: str, goal: Goal) -> list[Trial]:
    """The trials that have the metric, the best first; then the others by number."""
    sign = 1 if goal == "minimise" else -1

    def place(trial: Trial) -> tuple[bool, float, int]:
        measured = trial.status == "done" and metric in trial.metrics
        return not measured, sign * trial.metrics[metric] if measured else 0.0, trial.number

    return sorted(trials, key=place)


def read_sweep(folder: str | Path) -> list[Trial]:
    """The trials of a sweep's folder by number; SettingsError where `sweep.json` is not one of ours."""
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
    """The folders of the best trials of a sweep that have a log, by the metric that it was last asked for.

    Raises SettingsError where no trial has begun.
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


def _run(
    trial: Trial,
    recipe: Recipe,
    metric: str,
    folder: Path,
    *,
    device: str,
    runner: Runner,
    console: Console | None,
) -> Trial:
    run = folder / trial.folder
    started = (run / RECIPE).is_file()
    if run.exists() and not started:
        shutil.rmtree(run)  # killed before its first file was whole
    try:
        runner(recipe, run, started, device, console)
        metrics = read_run(run).final()
    except Exception as error:
        # Whatever it was, it is this trial's result: the sweep must not lose the others to it.
        what = str(error) if isinstance(error, DiptychError) else f"{type(error).__name__}: {error}"
        return replace(trial, status="failed", error=" ".join(what.split()))
    if metric not in metrics:
        named = ", ".join(sorted(metrics))
        return replace(trial, status="failed", error=f"no {metric!r} in its log, which has {named}")
    return replace(trial, status="done", metrics=metrics, error=None)


def _begin(folder: Path, sweep: Sweep, planned: Sequence[Mapping[str, Any]]) -> list[Trial]:
    trials = [Trial(number, settings) for number, settings in enumerate(planned)]
    if not (folder / SWEEP).exists():
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder}: is a folder with other files; name a new folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder, sweep, trials)
        return trials
    known = read_sweep(folder)
    before, now = json.loads((folder / SWEEP).read_text("utf-8"))["asked"], _asked(sweep)
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        raise SettingsError(
            f"{folder}: holds a sweep with another {' and '.join(changed)}; "
            "give the same to go on with it, or name another folder with --out"
        )
    # More trials may be asked for than before; with fewer, the others stay as they are.
    return [*known, *trials[len(known) :]]


def _save(folder: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    values = {
        "format_version": FORMAT_VERSION,
        "asked": _asked(sweep),
        "metric": sweep.metric,
        "goal": sweep.goal,
        "trials": [plain(trial) for trial in trials],
    }
    write_text(folder / SWEEP, json.dumps(values, indent=2) + "\n")


def _asked(sweep: Sweep) -> dict[str, Any]:
    """What must stay the same for a sweep to go on, as JSON gives it back."""
    asked = {
        "recipe": plain(load_recipe(sweep.recipe, sweep.assignments)),
        "grid": {grid.key: list(grid.values) for grid in sweep.grids},
        "random": {range_.key: [range_.low, range_.high] for range_ in sweep.ranges},
        "seed": sweep.seed,
    }
    return dict(json.loads(json.dumps(asked)))


def _check_metric(metric: str, recipes: Iterable[Recipe]) -> None:
    for recipe in recipes:
        tasks = [task.name for task in recipe.evaluation.tasks]
        if metric not in STEP_KEYS and not any(metric.startswith(f"{name}_") for name in tasks):
            named = (
                ", ".join(f"{name}_..." for name in tasks) or "none: the recipe has no [[evaluation.tasks]]"
            )
            raise SettingsError(
                f"--metric {metric!r} will not be in the log; expected loss, accuracy, or one of an "
                f"evaluation ({named})"
            )


def _delete_weights(folder: Path, others: Iterable[Trial]) -> None:
    for trial in others:
        for name in (CHECKPOINTS, *RESULTS):
            shutil.rmtree(folder / trial.folder / name, ignore_errors=True)


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, values = (part.strip() for part in text.partition("="))
    if not separator or not key or not values:
        raise SettingsError(f"{option} {text!r}: expected section.key=..., such as {example}")
    return key, values


def _toml(value: Any) -> str:
    """A value as TOML writes it on one line; JSON writes numbers, texts and truth values in the same way."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _number(text: str) -> float:
    """An int where it is written as one."""
    value = tomllib.loads(f"value = {text}")["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(text)
    return value
