"""Ranks, shares and areas, with the intervals that belong to them. Everything is NumPy and knows no model."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

# A metric of examples of which each counts as often as the (n,) numbers say; nan where they leave it undefined.
Statistic = Callable[[Integers], float]

CONFIDENCE_LEVEL = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)


def first_relevant(
    queries: Floats, gallery: Floats, relevant: Sequence[Sequence[int]], *, chunk: int = 256
) -> tuple[Integers, Flags]:
    """Return, for each query, the rank of the first relevant row of the gallery, sorted by similarity.

    queries: (n, dim); gallery: (m, dim), both unit length; relevant[i]: the rows that are right for query i,
    at least one. Returns the ranks (n,), 0 for the best place, and whether a wrong row had exactly the
    similarity of the best right one. Such ties go to the lower row number, as `argmax` does: a model that
    gives every row the same vector gets no credit for it. `chunk` queries are compared at a time, so that n x
    m is never held.
    """
    ranks = np.empty(len(queries), np.int64)
    tied = np.empty(len(queries), np.bool_)
    columns = np.arange(len(gallery))
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ gallery.T
        for row, score in enumerate(scores, start):
            right = np.asarray(relevant[row])
            best = score[right].max()
            place = right[score[right] == best].min()
            equal = score == best
            ranks[row] = np.count_nonzero(score > best) + np.count_nonzero(equal & (columns < place))
            tied[row] = np.count_nonzero(equal) > np.count_nonzero(score[right] == best)
    return ranks, tied


def share_within(ranks: Integers, k: int) -> float:
    """Return the share of ranks among the first `k`: top-k accuracy, or R@k with "at least one relevant" counted
    right."""
    return float(np.mean(ranks < k))


def mean_per_class(correct: Flags, target: Integers) -> float:
    """Return the accuracy of each class that occurs in `target`, averaged over those classes."""
    count = np.bincount(target)
    right = np.bincount(target, weights=correct)
    seen = count > 0
    return float(np.mean(right[seen] / count[seen]))


def mean_per_class_interval(correct: Flags, target: Integers) -> Interval:
    """Return Wilson's interval for `mean_per_class`, with the number of images that would be as good if spread
    evenly.

    A mean over C classes of n_c images has the variance p (1 - p) sum(1 / n_c) / C^2 where every class has
    the accuracy p, and a smaller one where they differ: as many as C^2 / sum(1 / n_c) images of one class.
    """
    count = np.bincount(target)
    seen = count[count > 0]
    return wilson(mean_per_class(correct, target), float(len(seen) ** 2 / np.sum(1 / seen)))


def wilson(share: float, count: float) -> Interval:
    """Return Wilson's score interval (1927) at 95 % for `share` successes of `count` independent trials.

    Unlike the normal approximation it stays within 0..1 and has a width where the share is 0 or 1.
    """
    if count < 1:
        raise ValueError(f"count {count}: expected at least one trial")
    centre = share + NORMAL_QUANTILE**2 / (2 * count)
    spread = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / count + NORMAL_QUANTILE**2 / (4 * count**2))
    scale = 1 + NORMAL_QUANTILE**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def chance_within(relevant: int, gallery: int, k: int) -> float:
    """Return the probability that a random order of `gallery` rows has one of `relevant` right ones among the first
    `k`."""
    miss = 1.0
    for place in range(min(k, gallery)):
        miss *= max(0, gallery - relevant - place) / (gallery - place)
    return 1 - miss


def bootstrap_interval(statistic: Statistic, count: int, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the percentile interval at 95 % (Efron 1979) for a metric of `count` examples without a formula for one.

    The examples are drawn `draws` times with replacement, as many as there are; `statistic` gets how often each
    was drawn. Draws that leave it undefined are left out. The same seed gives the same interval. Where the metric
    is at its limit (an area of exactly 1), so is every draw, and the interval has no width.
    """
    generator = np.random.default_rng(seed)
    drawn = (np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(draws))
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.nanquantile([statistic(times) for times in drawn], (tail, 1 - tail))
    return float(low), float(high)


def mean_interval(values: Floats) -> Interval:
    """Return the `bootstrap_interval` of the mean of what each example scored, (n,)."""
    return bootstrap_interval(lambda times: float(np.average(values, weights=times)), len(values))


def confusion_matrix(target: Integers, predicted: Integers, classes: int) -> Integers:
    """Count the examples of each class, a row, by what they were called, a column: (classes, classes)."""
    cells: Integers = np.bincount(target * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def roc_auc(score: Floats, positive: Flags) -> float:
    """Return the area under the ROC curve: the probability that a positive example scores above a negative one.

    score, positive: (n,), with at least one example of each kind. Equal scores count half, so that a score that
    says the same of everything has an area of 1/2.
    """
    return _area(_levels(score), positive, np.ones(len(score), np.int64))


def roc_auc_interval(score: Floats, positive: Flags) -> Interval:
    """Return the `bootstrap_interval` of `roc_auc`."""
    levels = _levels(score)
    return bootstrap_interval(lambda times: _area(levels, positive, times), len(score))


def map11(scores: Floats, relevant: Flags, judged: Flags | None = None) -> float:
    """Mean over classes of the 11-point average precision, of classes that have a relevant example at all.

    scores, relevant: (n, classes). judged: (n, classes), False where an example counts neither as right nor as
    wrong, as VOC's difficult objects; all count when not given. nan where no class has a relevant example.
    """
    return _mean_of_classes(average_precisions(scores, relevant, judged))


def map11_interval(scores: Floats, relevant: Flags, judged: Flags | None = None) -> Interval:
    """Return the `bootstrap_interval` of `map11`."""
    curves = _curves(scores, relevant, judged)
    return bootstrap_interval(
        lambda times: _mean_of_classes(np.array([curve.average(times) for curve in curves])), len(scores)
    )


def average_precisions(scores: Floats, relevant: Flags, judged: Flags | None = None) -> NDArray[np.float64]:
    """Return each class's 11-point average precision, (classes,); nan for one without a relevant example; see `map11`.

    The mean, over the recalls 0, 0.1, ..., 1, of the largest precision at that recall or a higher one: the measure
    of VOC up to 2009 (Everingham et al. 2010, section 4.2), which is not the area under the curve. Examples of one
    score enter together, so that their order means nothing; VOC's own program takes them in the order of its files.
    """
    once = np.ones(len(scores), np.int64)
    return np.array([curve.average(once) for curve in _curves(scores, relevant, judged)])


def _mean_of_classes(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _levels(score: Floats) -> Integers:
    """Return the number of smaller values that occur, for each score."""
    levels: Integers = np.unique(score, return_inverse=True)[1]
    return levels


def _area(levels: Integers, positive: Flags, times: Integers) -> float:
    positives = np.bincount(levels, weights=times * positive)
    negatives = np.bincount(levels, weights=times * ~positive)
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2) / pairs) if pairs else math.nan


class _Curve:
    """Precision and recall of one class, sorted once for any number of draws."""

    def __init__(self, score: Floats, relevant: Flags, rows: Integers) -> None:
        """score, relevant: (m,) of the examples that are judged; rows: (m,) their numbers among all."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        self._rows = rows[order]
        self._relevant = relevant[order]
        # The last place of each run of equal scores.
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else order

    def average(self, times: Integers) -> float:
        counts = times[self._rows]
        taken = np.cumsum(counts)[self._ends]
        right = np.cumsum(counts * self._relevant)[self._ends]
        if not len(right) or not right[-1]:
            return math.nan
        precision = np.divide(right, taken, out=np.zeros(len(right)), where=taken > 0)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        # Recall >= k / 10 in whole numbers: 0.3 is less than 3 * 0.1.
        first = np.searchsorted(10 * right, right[-1] * np.arange(11), side="left")
        return float(best_from_here[first].mean())


def _curves(scores: Floats, relevant: Flags, judged: Flags | None) -> list[_Curve]:
    judged = np.ones_like(relevant) if judged is None else judged
    rows = [np.flatnonzero(column) for column in judged.T]
    return [_Curve(scores[kept, column], relevant[kept, column], kept) for column, kept in enumerate(rows)]
