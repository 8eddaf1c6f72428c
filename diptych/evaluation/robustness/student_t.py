"""Student's t: how far the mean of a few values, of seeds or of models, may be from the truth."""

import math
from collections.abc import Sequence
from statistics import stdev

from diptych.evaluation.metrics import CONFIDENCE_LEVEL, NORMAL_QUANTILE


def student_t(freedom: int | None) -> float:
    """The two-sided 95 % quantile of Student's t; of the normal distribution for None.

    By halving: P(|T| < t) is a finite sum for whole degrees of freedom (Abramowitz and Stegun 1964, equations 26.7.3
    and 26.7.4).
    """
    if freedom is None:
        return NORMAL_QUANTILE
    low, high = 0.0, 64.0  # 12.71 is the largest, for one degree of freedom
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if _within(middle, freedom) < CONFIDENCE_LEVEL:
            low = middle
        else:
            high = middle
    return high


def margin(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval around the mean of independent values; infinite for a single one."""
    count = len(values)
    return student_t(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else math.inf


def _within(t: float, freedom: int) -> float:
    """P(|T| < t)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = total = cosine if odd else 1.0
    for step in range(2 + odd, freedom - 1, 2):
        term *= (step - 1) / step * cosine**2
        total += term
    if odd:
        return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
    return math.sin(angle) * total
