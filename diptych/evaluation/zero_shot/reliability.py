"""Whether a stated probability is the share of right answers: reliability curves and the expected calibration error.

Curves over bins of equal width are those of Guo et al. 2017 ("On Calibration of Modern Neural Networks", section 2),
who took the expected calibration error from Naeini et al. 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation.metrics import Flags, Floats, Integers
from diptych.evaluation.task_report import Outcomes

BINS = 15  # as in Table 1 of Guo et al.
_DRAWS = 200  # of the answers of a calibrated model; their mean is then known to 7 % of one draw's spread


@dataclass(frozen=True)
class Bin:
    """The examples whose probability is above `low` and at most `high`; at least one."""

    low: float
    high: float
    count: int
    confidence: float  # mean of the probabilities
    accuracy: float  # share of right answers


@dataclass(frozen=True)
class Reliability:
    """How far the stated probabilities of a task are from its accuracy.

    error: the expected calibration error of `curve`; by_chance: that of a calibrated model on as many examples.
    confidence, accuracy: means over all examples; an overconfident model has the higher confidence.
    """

    curve: tuple[Bin, ...]
    error: float
    by_chance: float
    confidence: float
    accuracy: float


def bins_of_equal_width(probability: Floats, correct: Flags, bins: int = BINS) -> list[Bin]:
    """The reliability curve over `bins` parts of 0..1; parts without an example are left out.

    probability: (n,), of the predicted class; correct: (n,), whether that class was right.
    """
    edges = np.linspace(0, 1, bins + 1)
    checked = _check_outcomes(probability, correct)
    part = _part_of(checked, edges)
    count = np.bincount(part, minlength=len(edges) - 1)
    confidence = np.bincount(part, weights=checked, minlength=len(count))
    right = np.bincount(part, weights=correct, minlength=len(count))
    return [
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            count=int(count[number]),
            confidence=float(confidence[number] / count[number]),
            accuracy=float(right[number] / count[number]),
        )
        for number in np.flatnonzero(count)
    ]


def expected_calibration_error(curve: Sequence[Bin]) -> float:
    """The mean over examples of |accuracy - confidence| of their bin, in 0..1 (Guo et al., equation 3)."""
    total = sum(part.count for part in curve)
    return sum(part.count * abs(part.accuracy - part.confidence) for part in curve) / total


def error_if_calibrated(probability: Floats, bins: int = BINS, seed: int = 0) -> float:
    """The calibration error over bins of equal width that a perfectly calibrated model shows on average.

    It is not 0: few answers scatter around their probability. Each of a number of draws takes answer i as right
    with probability i (the resampling of Bröcker and Smith 2007). An error near this value is no evidence of any.
    """
    checked = _check_outcomes(probability, np.ones(len(probability), np.bool_))
    part = _part_of(checked, np.linspace(0, 1, bins + 1))
    confidence = np.bincount(part, weights=checked, minlength=bins)
    random = np.random.default_rng(seed)
    errors = [
        np.abs(
            np.bincount(part, weights=random.random(len(checked)) < checked, minlength=bins) - confidence
        ).sum()
        / len(checked)
        for _ in range(_DRAWS)
    ]
    return float(np.mean(errors))


def reliability(outcomes: Outcomes) -> Reliability | None:
    """Return the reliability of the stated probabilities; None if a task states none."""
    if outcomes.probability is None or outcomes.target is None or outcomes.predicted is None:
        return None
    correct = outcomes.predicted == outcomes.target
    curve = bins_of_equal_width(outcomes.probability, correct)
    return Reliability(
        curve=tuple(curve),
        error=expected_calibration_error(curve),
        by_chance=error_if_calibrated(outcomes.probability),
        confidence=float(outcomes.probability.mean(dtype=np.float64)),
        accuracy=float(correct.mean()),
    )


def _part_of(probability: NDArray[np.float64], edges: NDArray[np.float64]) -> Integers:
    """The bin of each probability; an inner edge belongs to the bin below it."""
    return np.searchsorted(edges[1:-1], probability, side="left").astype(np.int64)


def _check_outcomes(probability: Floats, correct: Flags) -> NDArray[np.float64]:
    values = np.asarray(probability, np.float64)
    if len(values) == 0 or len(values) != len(correct):
        raise ValueError(
            f"{len(values)} probabilities and {len(correct)} answers; expected as many, and one or more"
        )
    if not (values.min() >= 0 and values.max() <= 1 + 1e-6):
        raise ValueError(
            f"probabilities from {values.min()} to {values.max()}: expected them within 0..1; take a softmax first"
        )
    return np.minimum(values, 1.0)
