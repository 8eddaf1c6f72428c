import math

import pytest

from diptych.training.optim.schedule import learning_rate
from diptych.training.settings import ScheduleSettings


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    settings = ScheduleSettings(warmup_steps=4)
    assert [learning_rate(step, 100, 1.0, settings) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_goes_from_the_peak_to_the_final_fraction() -> None:
    settings = ScheduleSettings(warmup_steps=10, final_fraction=0.1)
    assert learning_rate(10, 110, 2.0, settings) == pytest.approx(2.0)
    assert learning_rate(60, 110, 2.0, settings) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert learning_rate(110, 110, 2.0, settings) == pytest.approx(0.2)


def test_schedule_equals_the_published_formula() -> None:
    settings = ScheduleSettings(warmup_steps=0)
    for step in (0, 1, 17, 50, 99):
        expected = 3e-4 * 0.5 * (1 + math.cos(math.pi * step / 100))
        assert learning_rate(step, 100, 3e-4, settings) == pytest.approx(expected, rel=1e-12)


def test_a_warm_up_longer_than_the_run_never_divides_by_zero() -> None:
    assert learning_rate(5, 10, 1.0, ScheduleSettings(warmup_steps=10)) == pytest.approx(0.6)
    assert learning_rate(10, 10, 1.0, ScheduleSettings(warmup_steps=10)) == pytest.approx(1.0)
