"""The options of `diptych sweep` that say which trials it has, and how they are compared."""

import json
import math
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.errors import SettingsError, UsageError
from diptych.training.best import lower_is_better

if TYPE_CHECKING:
    from diptych.runs.sweep_plan import Goal, Grid, Range, Sweep


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which trials a sweep has, and by what they are sorted."""

    grid: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="section.key=value,value: each value with each of the other grids."),
    ] = ()
    random: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="section.key=low..high: drawn, log-uniformly if both are positive; whole if both are whole.",
        ),
    ] = ()
    trials: Annotated[int | None, Parameter(help="How many runs; without it, the grid once.")] = None
    sampler: Annotated[
        Literal["random", "tpe"],
        Parameter(
            help="random: each trial as --grid and --random say. tpe: propose it from the trials so far (Optuna)."
        ),
    ] = "random"
    seed: Annotated[int, Parameter(help="Seed of the random draws.")] = 0
    metric: Annotated[
        str, Parameter(help="What the table is sorted by: loss, accuracy, or TASK_METRIC of an evaluation.")
    ] = "loss"
    minimise: Annotated[
        bool, Parameter(negative="", help="The smallest is best, as for losses and ranks.")
    ] = False
    maximise: Annotated[bool, Parameter(negative="", help="The largest is best, as for shares.")] = False

    def sweep(self, recipe: str, assignments: tuple[str, ...]) -> "Sweep":
        """Return the sweep that the options ask for."""
        from diptych.runs.sweep_plan import Sweep

        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials {self.trials}: expected at least 1")
        return Sweep(
            recipe=recipe,
            assignments=assignments,
            grids=tuple(map(parse_grid, self.grid)),
            ranges=tuple(map(parse_range, self.random)),
            trials=self.trials,
            seed=self.seed,
            metric=self.metric,
            goal=self._goal(),
            sampler=self.sampler,
        )

    def _goal(self) -> "Goal":
        if self.minimise and self.maximise:
            raise UsageError("--minimise and --maximise: give one of them")
        return (
            "minimise"
            if self.minimise or (lower_is_better(self.metric) and not self.maximise)
            else "maximise"
        )


NO_SWEEP_OPTIONS = SweepOptions()


def parse_grid(text: str) -> "Grid":
    """Read `section.key=value,value`; a value that is not TOML is a string."""
    from diptych.runs.sweep_plan import Grid

    key, values = _split(text, "--grid", "optimizer.learning_rate=1e-4,3e-4")
    try:
        found = tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        found = [part.strip() for part in values.split(",")]
    if len({json.dumps(value, default=str) for value in found}) != len(found):
        raise SettingsError(f"--grid {text!r}: a value is there twice")
    return Grid(key, tuple(found))


def parse_range(text: str) -> "Range":
    """Read `section.key=low..high`."""
    from diptych.runs.sweep_plan import Range

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


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, values = (part.strip() for part in text.partition("="))
    if not separator or not key or not values:
        raise SettingsError(f"{option} {text!r}: expected section.key=..., such as {example}")
    return key, values


def _number(text: str) -> float:
    """Return an int if it is written as one, else a float."""
    value = tomllib.loads(f"value = {text}")["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(text)
    return value
