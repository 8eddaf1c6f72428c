"""Fits, effective robustness and intervals: against scipy, by hand, and on generated models whose truth is known."""

import math

import numpy as np
import pytest
from scipy import special, stats

from diptych.errors import DataError
from diptych.evaluation.robustness.effective import (
    Line,
    bootstrap,
    effective_robustness,
    fit_line,
    fit_pivoted_line,
    from_logit,
    gap_closed,
    logit,
    redraw,
    relative_robustness,
)

SLOPE, INTERCEPT = 1.1, -0.6


def expected(accuracy: float) -> float:
    """What the generated models lie about."""
    return float(special.expit(INTERCEPT + SLOPE * special.logit(accuracy)))


def models(count: int, scatter: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of generated models: a known line in logits, with normal noise."""
    generator = np.random.default_rng(seed)
    before = generator.uniform(0.35, 0.8, count)
    noise = generator.normal(0, scatter, count)
    return before, special.expit(INTERCEPT + SLOPE * special.logit(before) + noise)


# --- the scale


def test_logit_and_back_equal_scipy() -> None:
    accuracy = np.array([1e-9, 0.0261, 0.5, 0.762, 1 - 1e-9])
    np.testing.assert_allclose(logit(accuracy), special.logit(accuracy), rtol=1e-12)
    values = np.array([-800.0, -3.0, 0.0, 2.5, 800.0])  # the ends overflow exp
    np.testing.assert_allclose(from_logit(values), special.expit(values), rtol=1e-12, atol=1e-300)


def test_accuracies_of_0_and_1_are_moved_half_an_image_inwards() -> None:
    # 0 of 7,500 right: (0 + 1/2) / 7,501; its logit is log(0.5 / 7500.5).
    assert float(logit(0.0, 7500)) == pytest.approx(math.log(0.5 / 7500.5), abs=1e-12)
    assert float(logit(1.0, 7500)) == pytest.approx(-math.log(0.5 / 7500.5), abs=1e-12)
    # No more than the neighbours: one right image of 7,500 stays above none.
    assert float(logit(0.0, 7500)) < float(logit(1 / 7500, 7500))
    # Everything between is left alone.
    assert float(logit(1 / 7500, 7500)) == pytest.approx(special.logit(1 / 7500), abs=1e-12)


# --- the line


@pytest.mark.parametrize(("count", "scatter"), [(3, 0.2), (8, 0.1), (60, 0.02)])
def test_fit_and_its_interval_equal_scipys_regression(count: int, scatter: float) -> None:
    before, after = models(count, scatter, seed=count)
    line = fit_line(before, after)
    reference = stats.linregress(special.logit(before), special.logit(after))
    reach = stats.t.ppf(0.975, count - 2) * reference.stderr
    assert line.slope == pytest.approx(reference.slope, rel=1e-10)
    assert line.intercept == pytest.approx(reference.intercept, rel=1e-9)
    assert line.correlation == pytest.approx(reference.rvalue, rel=1e-10)
    assert line.slope_interval == pytest.approx((reference.slope - reach, reference.slope + reach), rel=1e-9)
    residuals = special.logit(after) - reference.intercept - reference.slope * special.logit(before)
    assert line.scatter == pytest.approx(math.sqrt(np.sum(residuals**2) / (count - 2)), rel=1e-8)


def test_a_line_without_noise_is_found_again() -> None:
    line = fit_line(*models(8, 0.0, seed=1))
    assert (line.slope, line.intercept) == pytest.approx((SLOPE, INTERCEPT))
    assert float(line.predict(0.7)) == pytest.approx(expected(0.7))


def test_hand_example() -> None:
    # Logits -1, 0, 1 to -2, 0, 2: slope 2 through the origin. logit(0.8) = log 4, so beta(0.8) = 16 / 17.
    points = special.expit([-1.0, 0.0, 1.0]), special.expit([-2.0, 0.0, 2.0])
    line = fit_line(*points)
    assert line.slope == pytest.approx(2)
    assert line.intercept == pytest.approx(0, abs=1e-12)
    assert float(line.predict(0.8)) == pytest.approx(16 / 17)
    assert effective_robustness(line, 0.8, 0.9) == pytest.approx(0.9 - 16 / 17)
    # At 0.2 the line expects 1 / 17, a loss of 0.2 - 1 / 17; a model with 0.1 has not lost a part of that.
    assert gap_closed(line, 0.2, 0.1) == pytest.approx((0.1 - 1 / 17) / (0.2 - 1 / 17))
    assert math.isnan(gap_closed(line, 0.8, 0.9))  # the line expects a gain there
    assert relative_robustness(0.42, 0.5) == pytest.approx(-0.08)


def test_a_model_on_the_line_scores_0() -> None:
    line = fit_line(*models(12, 0.15, seed=2))
    for accuracy in (0.05, 0.5, 0.95):
        on_line = float(line.predict(accuracy))
        assert effective_robustness(line, accuracy, on_line) == pytest.approx(0, abs=1e-15)
        assert gap_closed(line, accuracy, on_line) == pytest.approx(0, abs=1e-12)
        low, high = bootstrap(line, accuracy, on_line, (5000, 5000)).effective_interval
        assert low < 0 < high


def test_the_order_of_the_models_changes_nothing() -> None:
    before, after = models(15, 0.15, seed=3)
    order = np.random.default_rng(0).permutation(15)
    one, other = fit_line(before, after), fit_line(before[order], after[order])
    assert (one.slope, one.intercept) == (other.slope, other.intercept)
    assert bootstrap(one, 0.6, 0.7, (900, 800)) == bootstrap(other, 0.6, 0.7, (900, 800))


def test_a_model_at_0_takes_part_in_the_fit() -> None:
    before, after = models(6, 0.05, seed=4)
    after[0] = 0.0
    line = fit_line(before, after, (10_000, 7_500))
    clipped = np.where(after == 0, 0.5 / 7501, after)
    assert line.slope == pytest.approx(stats.linregress(special.logit(before), special.logit(clipped)).slope)
    assert 0 < float(line.predict(1.0)) < 1


def test_the_pivoted_line_fits_either_side_and_leaves_the_pivot_out() -> None:
    before = np.array([0.80, 0.85, 0.88, 0.9186, 0.93, 0.95, 0.97])
    after = np.array([0.012, 0.016, 0.018, 0.0, 0.06, 0.2, 0.5])
    line = fit_pivoted_line(before, after, 0.9186)
    for part, side in ((slice(0, 3), line.lower), (slice(4, 7), line.upper)):
        reference = stats.linregress(special.logit(before[part]), special.logit(after[part]))
        assert (side.slope, side.intercept) == pytest.approx((reference.slope, reference.intercept))
    assert float(line.predict(0.9)) == float(line.lower.predict(0.9))
    assert float(line.predict(0.94)) == float(line.upper.predict(0.94))
    assert effective_robustness(line, 0.94, 0.77) == effective_robustness(line.upper, 0.94, 0.77)
    assert bootstrap(line, 0.94, 0.77, (9, 9)) == bootstrap(line.upper, 0.94, 0.77, (9, 9))
    low, high = line.band(np.array([0.85, 0.95]))
    assert low[0] == line.lower.band(0.85)[0]
    assert high[1] == line.upper.band(0.95)[1]


# --- intervals


def slope_of(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    spread = np.mean(x * y, axis=axis) - np.mean(x, axis=axis) * np.mean(y, axis=axis)
    return np.asarray(spread / np.var(x, axis=axis))


def test_lines_through_resampled_models_equal_scipys_bootstrap() -> None:
    before, after = models(60, 0.12, seed=5)
    x, y = special.logit(before), special.logit(after)
    reference = stats.bootstrap(
        (x, y),
        slope_of,
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    line = fit_line(before, after)
    slopes, _ = line.lines(np.random.default_rng(1), 20_000)
    low, high = np.quantile(slopes, (0.025, 0.975))
    # Ours is stretched by sqrt(60 / 58) t(58) / z = 1.039. The noise of 20,000 draws is about 1 % of the width.
    stretch = math.sqrt(60 / 58) * stats.t.ppf(0.975, 58) / stats.norm.ppf(0.975)
    width = (reference.high - reference.low) * stretch
    assert high - low == pytest.approx(width, rel=0.03)
    assert (low + high) / 2 == pytest.approx((reference.low + reference.high) / 2, abs=0.02 * width)


def test_the_band_agrees_with_students_where_scatter_is_normal() -> None:
    before, after = models(200, 0.1, seed=6)
    line = fit_line(before, after)
    places = np.array([0.4, 0.6, 0.75])
    low, high = (special.logit(end) for end in line.band(places, draws=4000))
    x = special.logit(before)
    away = special.logit(places) - x.mean()
    error = line.scatter * np.sqrt(1 / 200 + away**2 / np.sum((x - x.mean()) ** 2))
    # The bootstrap does not assume even scatter: with 200 models it differs by about a tenth.
    np.testing.assert_allclose(high - low, 2 * stats.t.ppf(0.975, 198) * error, rtol=0.15)
    np.testing.assert_allclose(from_logit((low + high) / 2), line.predict(places), atol=2e-3)


def test_redrawn_accuracies_spread_as_resampled_images_do() -> None:
    right = np.zeros(900)
    right[:630] = 1
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    drawn = redraw(0.7, 900, np.random.default_rng(1), 20_000)
    # The standard error of an accuracy is 0.015; the ends of either interval are known to a twentieth of it.
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx([reference.low, reference.high], abs=1.5e-3)


def test_an_accuracy_of_0_or_1_still_has_a_width() -> None:
    generator = np.random.default_rng(0)
    assert 0 < float(np.quantile(redraw(0.0, 50, generator, 5000), 0.975)) < 0.1
    assert 0.9 < float(np.quantile(redraw(1.0, 50, generator, 5000), 0.025)) < 1
    low, high = bootstrap(fit_line(*models(10, 0.1, seed=7)), 0.6, 1.0, (500, 50)).effective_interval
    assert 0 < low < high


def test_the_same_seed_gives_the_same_interval_and_fewer_images_a_wider_one() -> None:
    line = fit_line(*models(10, 0.1, seed=8))
    many, few = bootstrap(line, 0.6, 0.7, (9000, 9000)), bootstrap(line, 0.6, 0.7, (90, 90))
    assert many == bootstrap(line, 0.6, 0.7, (9000, 9000))
    assert many.effective_interval != bootstrap(line, 0.6, 0.7, (9000, 9000), seed=1).effective_interval
    width = np.ptp(many.effective_interval), np.ptp(few.effective_interval)
    assert width[0] < width[1]
    assert (many.effective, many.gap_closed, many.deviations) == (
        few.effective,
        few.gap_closed,
        few.deviations,
    )


def test_height_in_scatters_is_the_residual_over_their_standard_deviation() -> None:
    line = fit_line(*models(10, 0.1, seed=9))
    above = float(from_logit(line.intercept + line.slope * float(logit(0.6)) + 3 * line.scatter))
    assert bootstrap(line, 0.6, above, (100, 100)).deviations == pytest.approx(3)


def coverage(count: int, *, runs: int, place: float, gain: float) -> tuple[float, float]:
    """How often the band holds the true line at `place`, and the interval of rho the true `gain` of a model there."""
    generator = np.random.default_rng(count)
    images = 2000
    line_held = gain_held = 0
    for run in range(runs):
        line = fit_line(*models(count, 0.12, seed=1000 * count + run))
        low, high = line.band(place, draws=800, seed=run)
        line_held += bool(low <= expected(place) <= high)
        before = generator.binomial(images, place) / images
        after = generator.binomial(images, expected(place) + gain) / images
        low_gain, high_gain = bootstrap(
            line, before, after, (images, images), draws=800, seed=run
        ).effective_interval
        gain_held += low_gain <= gain <= high_gain
    return line_held / runs, gain_held / runs


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # 200 runs at 95 %: the standard error of a share is 1.5 points.
    assert min(coverage(8, runs=200, place=0.65, gain=0.1)) > 0.9


@pytest.mark.nightly
@pytest.mark.parametrize("count", [5, 8, 20, 60])
@pytest.mark.parametrize("place", [0.65, 0.9])  # among the models, and beyond the best of them
def test_coverage_is_95_percent_for_few_models_and_for_many(count: int, place: float) -> None:
    shares = coverage(count, runs=2000, place=place, gain=0.05)
    # 2,000 runs: a standard error of half a point.
    assert min(shares) > 0.925
    assert max(shares) < 0.99


# --- what cannot be fitted


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([0.5, 0.6], [0.4, 0.5], "2 standard models: a line needs at least 3"),
        ([0.5, 0.6, 0.7], [0.4, 0.5], r"\(3,\) and \(2,\): expected two lists of equal length"),
        ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6], "all 3 standard models have the accuracy 0.5"),
        ([50.0, 0.6, 0.7], [0.4, 0.5, 0.6], "accuracy 50: expected a fraction in 0..1"),
        ([0.5, 0.6, math.nan], [0.4, 0.5, 0.6], "accuracy nan: expected a fraction"),
        ([0.5, 0.6, 0.7], [0.0, 0.5, 0.6], "accuracy 0 has no logit; give the number of test images"),
    ],
)
def test_what_cannot_be_fitted_is_named(before: list[float], after: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_line(before, after)


def test_models_that_all_lie_on_a_line_have_no_scatter_to_measure_by() -> None:
    line = Line(np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.0]))
    assert (line.slope, line.correlation, line.scatter) == (0, 0, 0)
    assert math.isnan(bootstrap(line, 0.6, 0.7, (100, 100)).deviations)
