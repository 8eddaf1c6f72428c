"""Student's t: the error of the mean of a few values, such as of seeds or of models."""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy import special

from diptych.evaluation.metrics import CONFIDENCE_LEVEL


def student_t(freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t.

    freedom: degrees of freedom; infinite ones give the quantile of the normal distribution.
    """
    return float(special.stdtrit(freedom, (1 + CONFIDENCE_LEVEL) / 2))


def margin(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval around the mean of independent values; infinite for a single one."""
    count = len(values)
    return student_t(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else math.inf
