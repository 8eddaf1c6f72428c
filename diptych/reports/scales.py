"""What charts are computed with: axes with round numbers, and lines of few points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_POINTS = 400  # of a drawn line; the lowest and the highest of each part are kept

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """From values to 0..1."""

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = (math.log10(number) for number in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    @classmethod
    def linear(cls, low: float, high: float) -> "Axis":
        """Return an axis between the round numbers around `low` and `high`."""
        ticks = nice_ticks(low, high)
        return cls(ticks[0], ticks[-1], ticks)

    @classmethod
    def powers(cls, low: float, high: float) -> "Axis":
        """Return a logarithmic axis between the powers of ten around `low` and `high`."""
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        every = math.ceil((last - first) / 5)
        return cls(10.0**first, 10.0**last, [10.0**power for power in range(first, last + 1, every)], True)


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Return the mean over a twentieth of the run around each step."""
    reach = max(1, len(points) // 40)
    total = [0.0]
    for _, value in points:
        total.append(total[-1] + value)
    result = []
    for place, (step, _) in enumerate(points):
        start, stop = max(0, place - reach), min(len(points), place + reach + 1)
        result.append((step, (total[stop] - total[start]) / (stop - start)))
    return result


def thinned(points: Points, most: int = _POINTS) -> list[tuple[float, float]]:
    """Return at most about `most` points that draw the same line: the lowest and the highest of each part."""
    if len(points) <= most:
        return list(points)
    parts = most // 2
    chosen: list[tuple[float, float]] = [points[0]]
    for part in range(parts):
        near = points[part * len(points) // parts : (part + 1) * len(points) // parts]
        ends = {min(near, key=lambda point: point[1]), max(near, key=lambda point: point[1])}
        chosen += sorted(ends)
    return [*chosen, points[-1]]


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from at most `low` to at least `high`: multiples of 1, 2 or 5 times a power of ten."""
    size = max(abs(low), abs(high))
    if size < 1e-300:  # nothing but zeros
        low, high = 0.0, 1.0
    elif high - low <= 1e-9 * size:  # a constant stands in the middle
        low, high = sorted((0.0, 2 * high))
    span = high - low
    for exponent in range(math.floor(math.log10(span / most)) - 1, math.ceil(math.log10(span)) + 2):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first < most:
                last = max(last, first + 1)
                return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
    raise AssertionError(f"no ticks between {low} and {high}")
