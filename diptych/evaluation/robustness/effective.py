"""Effective and relative robustness: does a model lose less under a distribution shift than its accuracy predicts?

Models trained in the usual way lie close to a straight line when their accuracy under a shift is drawn against
their accuracy without it, both on the logit scale (Taori et al. 2020, "Measuring Robustness to Natural
Distribution Shifts in Image Classification", section 2). The line is fitted to such *standard* models alone. What
another model has above it is its effective robustness (Radford et al. 2021, section 3.3 and Figure 13).

Accuracies are fractions in 0..1, and so is everything that is called robustness. Counts are numbers of test
images, always in the order (without the shift, under the shift).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from diptych.errors import DataError
from diptych.evaluation.metrics import CONFIDENCE_LEVEL, NORMAL_QUANTILE, Interval
from diptych.evaluation.robustness.student_t import student_t

Numbers = NDArray[np.float64]
Counts = tuple[float, float]  # test images without the shift, and under it

DRAWS = 10_000
_TAILS = ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)
_FEWEST_MODELS = 3  # two points have a line, but nothing that says how well it fits


def logit(accuracy: ArrayLike, count: float | None = None) -> Numbers:
    """Return log(a / (1 - a)) of each accuracy.

    0 and 1 have no finite logit. They are taken as (k + 1/2) / (count + 1), k being 0 or `count` right images: half
    an image inside the scale (Anscombe 1956). Every other value is left as it is.

    Raises:
        DataError: a value outside 0..1, or 0 or 1 without a `count`.
    """
    values = np.array(accuracy, np.float64)
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise DataError(
            f"accuracy {values[outside].flat[0]:g}: expected a fraction in 0..1 (0.763, not 76.3)"
        )
    ends = (values == 0) | (values == 1)
    if ends.any():
        if count is None or not count >= 1:
            raise DataError(
                f"accuracy {values[ends].flat[0]:g} has no logit; give the number of test images, "
                "by which it is moved half an image inwards"
            )
        values[ends] = (values[ends] * count + 0.5) / (count + 1)
    result: Numbers = np.log(values) - np.log1p(-values)
    return result


def from_logit(value: ArrayLike) -> Numbers:
    """Return the accuracy that has this logit: 1 / (1 + exp(-value)), without overflow."""
    result: Numbers = special.expit(np.asarray(value, np.float64))
    return result


@dataclass(frozen=True, eq=False)
class Line:
    """What accuracy under a shift to expect of a standard model: `shift = intercept + slope * id`, in logits."""

    id_logits: Numbers  # (models,) of the models that it was fitted to, ascending
    shift_logits: Numbers  # (models,)
    counts: Counts | None = None  # of the two test sets, where known

    @property
    def slope(self) -> float:
        return float(self._fit.slope)

    @property
    def intercept(self) -> float:
        return float(self._fit.intercept)

    @property
    def correlation(self) -> float:
        """Return Pearson's r of the two logits; 0 where every model has the same accuracy under the shift."""
        return float(self._fit.rvalue) if np.ptp(self.shift_logits) > 0 else 0.0

    @property
    def models(self) -> int:
        return len(self.id_logits)

    @property
    def scatter(self) -> float:
        """Return the standard deviation of the models about the line, in logits, with models - 2 degrees of freedom."""
        # By the residuals: SciPy's 1 - r**2 loses its digits where models nearly lie on the line.
        away = self.shift_logits - self.intercept - self.slope * self.id_logits
        return math.sqrt(away @ away / (self.models - 2))

    @property
    def slope_interval(self) -> Interval:
        """Return the slope's 95 % interval by Student's t, exact where models scatter normally about a line."""
        spread = float(self.id_logits.std()) * math.sqrt(self.models)
        reach = student_t(self.models - 2) * self.scatter / spread
        return self.slope - reach, self.slope + reach

    def predict(self, id_accuracy: ArrayLike) -> Numbers:
        """Return beta: the accuracy under the shift of a standard model with this accuracy without it."""
        count = self.counts[0] if self.counts else None
        return from_logit(self.intercept + self.slope * logit(id_accuracy, count))

    def band(self, id_accuracy: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> tuple[Numbers, Numbers]:
        """Return the ends of the 95 % interval of `predict`, by resampling the models (`lines`)."""
        place = logit(id_accuracy, self.counts[0] if self.counts else None)
        slopes, intercepts = self.lines(np.random.default_rng(seed), draws)
        heights = intercepts[:, None] + slopes[:, None] * place.reshape(-1)
        low, high = np.quantile(heights, _TAILS, axis=0)
        return from_logit(low).reshape(place.shape), from_logit(high).reshape(place.shape)

    def lines(self, generator: np.random.Generator, draws: int) -> tuple[Numbers, Numbers]:
        """Return slopes and intercepts, (draws,) each, of lines through as many models drawn with replacement.

        A resampled fit is too narrow where models are few: it varies as if their scatter were divided by n, not by
        n - 2, and its tails are normal, not Student's. So each line's distance from the fitted one is stretched by
        sqrt(n / (n - 2)) t / z, the correction that Hesterberg (2015, "What Teachers Should Know about the Bootstrap")
        gives for a mean, with two parameters in place of one: 1.44 for 8 models, 1.04 for 60. Draws that hold one
        accuracy only have no line and are drawn again.
        """
        chosen = generator.integers(0, self.models, (draws, self.models))
        while (flat := np.ptp(self.id_logits[chosen], axis=1) == 0).any():
            chosen[flat] = generator.integers(0, self.models, (int(flat.sum()), self.models))
        x, y = self.id_logits[chosen], self.shift_logits[chosen]
        centred = x - x.mean(axis=1, keepdims=True)
        slopes = np.sum(centred * y, axis=1) / np.sum(centred**2, axis=1)
        intercepts = y.mean(axis=1) - slopes * x.mean(axis=1)
        stretch = math.sqrt(self.models / (self.models - 2)) * student_t(self.models - 2) / NORMAL_QUANTILE
        return (
            self.slope + stretch * (slopes - self.slope),
            self.intercept + stretch * (intercepts - self.intercept),
        )

    @cached_property
    def _fit(self) -> Any:
        return stats.linregress(self.id_logits, self.shift_logits)


@dataclass(frozen=True, eq=False)
class PivotedLine:
    """Two lines, for models up to an accuracy and above it.

    ImageNet-A holds the images that one ResNet-50 got wrong. Models weaker than it are about as bad at them
    whatever their accuracy, stronger ones gain quickly, and its own accuracy is 0 by construction: the testbed of
    Taori et al. (2020) fits either side on its own and leaves that model out.
    """

    pivot: float  # accuracy without the shift
    lower: Line
    upper: Line

    def predict(self, id_accuracy: ArrayLike) -> Numbers:
        """Return beta: the accuracy under the shift of a standard model with this accuracy without it."""
        given = np.asarray(id_accuracy, np.float64)
        return np.where(given > self.pivot, self.upper.predict(given), self.lower.predict(given))

    def band(self, id_accuracy: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> tuple[Numbers, Numbers]:
        """Return the ends of the 95 % interval of `predict`, by resampling the models of either side."""
        given = np.asarray(id_accuracy, np.float64)
        below, above = (line.band(given, draws=draws, seed=seed) for line in (self.lower, self.upper))
        low, high = (np.where(given > self.pivot, *ends) for ends in zip(above, below, strict=True))
        return low, high

    def side(self, id_accuracy: float) -> Line:
        """Return the line that holds for a model with this accuracy."""
        return self.upper if id_accuracy > self.pivot else self.lower


Baseline = Line | PivotedLine


@dataclass(frozen=True)
class Standing:
    """Where a model stands against the line, with 95 % intervals from models and test images."""

    effective: float  # rho: accuracy under the shift, less what the line predicts
    effective_interval: Interval
    gap_closed: float  # share of the predicted loss that the model does not have; nan where none is predicted
    gap_closed_interval: Interval
    deviations: float  # height above the line in units of the standard models' own scatter about it, on the logit scale


def fit_line(id_accuracy: ArrayLike, shift_accuracy: ArrayLike, counts: Counts | None = None) -> Line:
    """Fit the line of least squares through the standard models, on the logit scale.

    id_accuracy, shift_accuracy: (models,) of each model without the shift and under it, in any order. counts: the
    numbers of test images, by which an accuracy of exactly 0 or 1 gets a finite logit.

    Raises:
        DataError: fewer than three models, all of one accuracy, or an accuracy that cannot be used.
    """
    before, after = np.atleast_1d(id_accuracy), np.atleast_1d(shift_accuracy)
    if before.shape != after.shape or before.ndim != 1:
        raise DataError(
            f"accuracies of {before.shape} and {after.shape}: expected two lists of equal length, one value a model"
        )
    if len(before) < _FEWEST_MODELS:
        raise DataError(f"{len(before)} standard models: a line needs at least {_FEWEST_MODELS}")
    x, y = logit(before, counts[0] if counts else None), logit(after, counts[1] if counts else None)
    if np.ptp(x) == 0:
        raise DataError(
            f"all {len(before)} standard models have the accuracy {before[0]:g}; a line needs different ones"
        )
    # Sorted, so that sums and seeded draws do not depend on the order that the models came in.
    order = np.lexsort((y, x))
    return Line(x[order], y[order], counts)


def fit_pivoted_line(
    id_accuracy: ArrayLike, shift_accuracy: ArrayLike, pivot: float, counts: Counts | None = None
) -> PivotedLine:
    """Fit a line for the models below `pivot`, and one for those above it; a model exactly at it is in neither."""
    before, after = np.atleast_1d(id_accuracy), np.atleast_1d(shift_accuracy)
    lower, upper = before < pivot, before > pivot
    return PivotedLine(
        pivot, fit_line(before[lower], after[lower], counts), fit_line(before[upper], after[upper], counts)
    )


def effective_robustness(line: Baseline, id_accuracy: float, shift_accuracy: float) -> float:
    """Return rho = acc_shift - beta(acc_id): 0 for a model on the line, 0.1 for one that is ten points above it."""
    return float(shift_accuracy - line.predict(id_accuracy))


def relative_robustness(shift_accuracy: float, unchanged: float) -> float:
    """Return tau = acc_shift(f') - acc_shift(f): what a change of the model f to f' gained under the shift.

    A change that helps has rho > 0 and tau > 0: above the line, and above the model that it started from.
    """
    return shift_accuracy - unchanged


def gap_closed(line: Baseline, id_accuracy: float, shift_accuracy: float) -> float:
    """Return rho / (acc_id - beta(acc_id)): the share of a standard model's expected loss that this one does not have.

    0 on the line, 1 for a model that loses nothing, above 1 for one that gains. nan where the line expects no loss.
    """
    expected = float(line.predict(id_accuracy))
    return (shift_accuracy - expected) / (id_accuracy - expected) if id_accuracy > expected else math.nan


def bootstrap(
    line: Baseline,
    id_accuracy: float,
    shift_accuracy: float,
    counts: Counts,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Standing:
    """Return a model's robustness with its uncertainty: 95 % intervals from `draws` seeded draws.

    Each draw has a line through resampled models (`Line.lines`) and both accuracies of this model as other test images
    would have given them (`redraw`), independently. Models that are tested on the same images share part of that
    luck, line and model alike, so the intervals are if anything too wide.
    """
    generator = np.random.default_rng(seed)
    fitted = line.side(id_accuracy) if isinstance(line, PivotedLine) else line
    slopes, intercepts = fitted.lines(generator, draws)
    before = redraw(id_accuracy, counts[0], generator, draws)
    after = redraw(shift_accuracy, counts[1], generator, draws)
    expected = from_logit(intercepts + slopes * logit(before, counts[0]))
    effective = after - expected
    loss = before - expected
    # Where some draw expects no loss there is no share of it, and no interval.
    share = np.divide(effective, loss, out=np.full(draws, math.nan), where=loss > 0)
    height = (
        logit(shift_accuracy, counts[1]) - fitted.intercept - fitted.slope * logit(id_accuracy, counts[0])
    )
    return Standing(
        effective=effective_robustness(line, id_accuracy, shift_accuracy),
        effective_interval=percentiles(effective),
        gap_closed=gap_closed(line, id_accuracy, shift_accuracy),
        gap_closed_interval=percentiles(share) if (loss > 0).all() else (math.nan, math.nan),
        deviations=float(height) / fitted.scatter if fitted.scatter > 0 else math.nan,
    )


def relative_interval(
    shift_accuracy: float, unchanged: float, count: float, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return the 95 % interval of `relative_robustness`, both models on `count` images, drawn independently.

    On the same images models tend to err alike, and the true interval is narrower: `diptych compare` pairs them.
    """
    generator = np.random.default_rng(seed)
    after, before = (redraw(accuracy, count, generator, draws) for accuracy in (shift_accuracy, unchanged))
    return percentiles(after - before)


def redraw(accuracy: float, count: float, generator: np.random.Generator, draws: int) -> Numbers:
    """Draw accuracies, (draws,), that `count` other test images might have given.

    Beta(k + 1/2, count - k + 1/2) for k right images: Jeffreys' posterior. With many images it is what resampling
    them gives; unlike that, it has a width where the accuracy is 0 or 1 (Brown, Cai and DasGupta 2001).
    """
    right = accuracy * count
    drawn: Numbers = generator.beta(right + 0.5, count - right + 0.5, draws)
    return drawn


def percentiles(values: Numbers) -> Interval:
    """Return the middle 95 % of draws."""
    low, high = np.quantile(values, _TAILS)
    return float(low), float(high)
