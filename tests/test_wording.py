"""Numbers for people."""

import math

import pytest

from diptych.wording import four_digits, metric_interval, metric_value, points


def test_a_rank_is_a_number_and_any_other_metric_a_share() -> None:
    assert metric_value("text_to_image_median_rank", 1234.0) == "1,234.0"
    assert metric_value("top1", 0.5) == "50.0 %"
    assert metric_value("roc_auc", math.nan) == metric_value("roc_auc", None) == "-"
    assert metric_interval("top1", (0.25, 0.75)) == "25.0 % to 75.0 %"
    assert metric_interval("top1", None) == "-"


@pytest.mark.parametrize(("value", "said"), [(0.000512345, "0.0005123"), (12.0, "12"), (12345.6, "12,346")])
def test_four_digits_are_significant_and_thousands_apart(value: float, said: str) -> None:
    assert four_digits(value) == said


def test_a_difference_has_its_sign() -> None:
    assert (points(0.0312), points(-0.5), points(0.0)) == ("+3.1", "-50.0", "+0.0")
