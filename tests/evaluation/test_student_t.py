"""Student's t: quantiles and intervals of the mean, against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from diptych.evaluation.robustness.student_t import margin, student_t


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 11, 30, 58, 203])
def test_quantiles_equal_scipy(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_without_degrees_of_freedom_it_is_the_normal_quantile() -> None:
    assert student_t(math.inf) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)
    assert student_t(100_003) == pytest.approx(student_t(math.inf), rel=1e-4)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 30])
def test_the_margin_is_half_of_scipys_interval(count: int) -> None:
    values = np.random.default_rng(count).normal(0.5, 0.01, count)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert margin(values.tolist()) == pytest.approx((high - low) / 2, rel=1e-9)


def test_one_value_says_nothing_of_its_error() -> None:
    assert math.isinf(margin([0.5]))
    assert margin([0.5, 0.5, 0.5]) == 0
