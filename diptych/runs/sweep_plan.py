"""Plan the trials of a sweep: every point of grids, and draws from ranges.

The paper's settings were found so: "a combination of grid searches, random search, and manual tuning on the
baseline ResNet-50 model when trained for 1 epoch" (Radford et al. 2021, section 2.5).
"""

import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diptych.errors import SettingsError
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe

Goal = Literal["minimise", "maximise"]
Sampler = Literal["random", "tpe"]


@dataclass(frozen=True)
class Grid:
    """A setting and the values to try."""

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
        """Whether whole numbers are drawn, because both ends are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, chance: float) -> float:
        """Return the value at `chance` in 0..1 of the range."""
        # A whole number stands for the numbers that round to it, so that the ends are as likely as the others.
        margin = 0.5 if self.whole else 0.0
        low, high = self.low - margin, self.high + margin
        if low > 0:
            value = math.exp(math.log(low) + chance * (math.log(high) - math.log(low)))
        else:
            value = low + chance * (high - low)
        return min(max(round(value), self.low), self.high) if self.whole else float(f"{value:.4g}")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as it was asked for.

    recipe, assignments: as `load_recipe` takes them; they hold for every trial.
    trials: how many; None is every point of the grid once. With ranges, trial i has point i of the grid (from the
        first again after the last) and draws of its own.
    sampler: "tpe" proposes each trial's settings from the trials before it, as `sweep_tpe` says, instead.
    """

    recipe: str
    assignments: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    ranges: tuple[Range, ...] = ()
    trials: int | None = None
    seed: int = 0
    metric: str = "loss"
    goal: Goal = "minimise"
    sampler: Sampler = "random"

    def plan(self) -> list[dict[str, Any]]:
        """Return the settings of each trial; a draw depends on seed, key and number, so more trials keep the others.

        There are none with the sampler "tpe", which proposes them as it goes.
        """
        keys = [*(grid.key for grid in self.grids), *(range_.key for range_ in self.ranges)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice or not keys:
            problem = f"{twice[0]!r} is swept twice" if twice else "there is nothing to sweep"
            raise SettingsError(f"{problem}; give each setting one --grid or one --random")
        if self.sampler == "tpe":
            if self.trials is None:
                raise SettingsError("--sampler tpe needs a number of trials: --trials 20")
            return []
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

    def corners(self) -> list[dict[str, Any]]:
        """Return settings with every value of the grids and both ends of the ranges, for checks before a run."""
        choices = {grid.key: grid.values for grid in self.grids}
        choices |= {range_.key: (range_.low, range_.high) for range_ in self.ranges}
        return [
            {key: values[min(row, len(values) - 1)] for key, values in choices.items()}
            for row in range(max(map(len, choices.values())))
        ]

    def _draws(self, number: int) -> dict[str, float]:
        return {
            range_.key: range_.at(
                np.random.default_rng((self.seed, zlib.crc32(range_.key.encode()), number)).random()
            )
            for range_ in self.ranges
        }

    def recipe_of(self, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe of one trial."""
        swept = tuple(f"{key}={_toml(value)}" for key, value in settings.items())
        return load_recipe(self.recipe, (*self.assignments, *swept))


def _toml(value: Any) -> str:
    """Return a value as TOML on one line; JSON writes numbers, strings and booleans in the same way."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
