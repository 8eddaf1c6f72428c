"""Reliability curves beside slow loops, scikit-learn, and answers whose calibration is known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from diptych.evaluation.metrics import Flags, Floats
from diptych.evaluation.zero_shot.reliability import (
    Bin,
    bins_of_equal_width,
    error_if_calibrated,
    expected_calibration_error,
)


def answers(count: int, seed: int = 0, *, overconfident: float = 0.0) -> tuple[Floats, Flags]:
    """Probabilities, and whether each answer is right: less often than said by `overconfident`."""
    random = np.random.default_rng(seed)
    probability = random.beta(2, 1, count).astype(np.float32)
    return probability, random.random(count) < np.clip(probability - overconfident, 0, 1)


def slow_error(probability: Floats, correct: Flags, bins: int) -> float:
    """Guo et al. 2017, equations 1 to 3, as they are written there."""
    error = 0.0
    for number in range(bins):
        members = [
            i
            for i, p in enumerate(probability.tolist())
            if number / bins < p <= (number + 1) / bins or (p == 0 and number == 0)
        ]
        if members:
            accuracy = sum(bool(correct[i]) for i in members) / len(members)
            confidence = sum(float(probability[i]) for i in members) / len(members)
            error += len(members) / len(probability) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_that_of_a_slow_loop(bins: int) -> None:
    probability, correct = answers(500, overconfident=0.2)
    found = expected_calibration_error(bins_of_equal_width(probability, correct, bins))
    assert found == pytest.approx(slow_error(probability, correct, bins), abs=1e-12)  # float64 sums


def test_a_curve_of_equal_widths_is_scikit_learns() -> None:
    probability, correct = answers(800)
    accuracy, confidence = calibration_curve(correct, probability, n_bins=15)
    curve = bins_of_equal_width(probability, correct)
    np.testing.assert_allclose([part.accuracy for part in curve], accuracy, atol=1e-12)
    np.testing.assert_allclose(
        [part.confidence for part in curve], confidence, atol=1e-6
    )  # theirs is float32


def test_a_hand_worked_curve() -> None:
    probability = np.array([0.5, 0.5, 0.9, 0.9], np.float32)
    curve = bins_of_equal_width(probability, np.array([True, False, True, False]), 2)
    lower, upper = curve
    assert lower == Bin(0.0, 0.5, 2, 0.5, 0.5)
    assert upper.confidence == pytest.approx(0.9, abs=1e-6)
    assert replace(upper, confidence=0.9) == Bin(0.5, 1.0, 2, 0.9, 0.5)
    assert expected_calibration_error(curve) == pytest.approx(0.2, abs=1e-6)


def test_every_example_is_in_one_bin_also_at_0_and_1() -> None:
    probability = np.array([0.0, 1 / 3, 2 / 3, 1.0, 1.0], np.float32)
    curve = bins_of_equal_width(probability, np.ones(5, np.bool_), 3)
    assert sum(part.count for part in curve) == 5


def test_calibrated_answers_show_the_error_that_is_foretold() -> None:
    pairs = [answers(300, seed) for seed in range(100)]
    measured = [expected_calibration_error(bins_of_equal_width(*pair)) for pair in pairs]
    foretold = [error_if_calibrated(probability) for probability, _ in pairs[:10]]
    # Standard error of the mean of 100 draws; 4 of them.
    assert abs(np.mean(measured) - np.mean(foretold)) < 4 * np.std(measured) / 10
    overconfident = answers(300, overconfident=0.2)
    assert expected_calibration_error(bins_of_equal_width(*overconfident)) > 2 * np.mean(foretold)


def test_the_foretold_error_is_the_same_at_every_call_and_shrinks_with_the_examples() -> None:
    few, many = answers(100)[0], answers(10_000)[0]
    assert error_if_calibrated(few) == error_if_calibrated(few)
    # As 1 / sqrt(n), up to bins that stay empty with few.
    assert 6 < error_if_calibrated(few) / error_if_calibrated(many) < 12


@pytest.mark.parametrize(
    ("probability", "correct", "said"),
    [
        ([], [], "one or more"),
        ([0.5, 0.5], [True], "as many"),
        ([3.0], [True], "within 0..1"),
        ([float("nan")], [True], "within 0..1"),
    ],
)
def test_what_is_no_probability_is_refused(probability: list[float], correct: list[bool], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bins_of_equal_width(np.array(probability, np.float32), np.array(correct, np.bool_))
