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
        """Whether it is better: of equal ones the first is, and what is not finite is never."""
        if not math.isfinite(self.value) or other is None:
            return math.isfinite(self.value)
        return self.value < other.value if lower_is_better(self.metric) else self.value > other.value


def lower_is_better(metric: str) -> bool:
    """Whether a metric is to be small: losses, errors, ranks and shares of ties. All others are to be large."""
    return metric.rpartition("_")[2] in _SMALL


def best_of(metric: str, curve: Iterable[tuple[float, float]]) -> Best | None:
    """The best of a log's (step, value) pairs, by step; None where none is finite."""
    best: Best | None = None
    for step, value in curve:
        found = Best(metric, int(step), value)
        if found.beats(best):
            best = found
    return best
