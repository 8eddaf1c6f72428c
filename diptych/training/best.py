"""The best evaluation of a run, by one metric."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Last words of the names of metrics whose smallest value is the best.
_SMALL = {"loss", "error", "rank", "tied"}


@dataclass(frozen=True)
class Best:
    """A value of a metric, by its name in the log, and the optimizer step after which it was measured."""

    metric: str
    step: int
    value: float

    def beats(self, other: "Best | None") -> bool:
        """Return whether this one is better. Among equal ones the first is; a value that is not finite never is."""
        if not math.isfinite(self.value) or other is None:
            return math.isfinite(self.value)
        return self.value < other.value if lower_is_better(self.metric) else self.value > other.value


def lower_is_better(metric: str) -> bool:
    """Return whether a metric should be small: losses, errors, ranks and shares of ties. All others should be large."""
    return metric.rpartition("_")[2] in _SMALL


def best_of(metric: str, curve: Iterable[tuple[float, float]]) -> Best | None:
    """Return the best of a log's (step, value) pairs, by step; None where no value is finite."""
    best: Best | None = None
    for step, value in curve:
        found = Best(metric, int(step), value)
        if found.beats(best):
            best = found
    return best
