"""Ranks and shares, with the intervals that belong to them. Everything is NumPy and knows no model."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

CONFIDENCE_LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)


def first_relevant(
    queries: Floats, gallery: Floats, relevant: Sequence[Sequence[int]], *, chunk: int = 256
) -> tuple[Integers, Flags]:
    """Where, for each query, the first relevant row of the gallery stands when rows are sorted by similarity.

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
    """The share of ranks among the first `k`: top-k accuracy, or R@k with "at least one relevant" counted
    right."""
    return float(np.mean(ranks < k))


def mean_per_class(correct: Flags, target: Integers) -> float:
    """Accuracy of each class that occurs in `target`, averaged over those classes."""
    count = np.bincount(target)
    right = np.bincount(target, weights=correct)
    seen = count > 0
    return float(np.mean(right[seen] / count[seen]))


def mean_per_class_interval(correct: Flags, target: Integers) -> Interval:
    """Wilson's interval for `mean_per_class`, with the number of images that would be as good if spread
    evenly.

    A mean over C classes of n_c images has the variance p (1 - p) sum(1 / n_c) / C^2 where every class has
    the accuracy p, and a smaller one where they differ: as many as C^2 / sum(1 / n_c) images of one class.
    """
    count = np.bincount(target)
    seen = count[count > 0]
    return wilson(mean_per_class(correct, target), float(len(seen) ** 2 / np.sum(1 / seen)))


def wilson(share: float, count: float) -> Interval:
    """Wilson's score interval (1927) at 95 % for `share` successes of `count` independent trials.

    Unlike the normal approximation it stays within 0..1 and has a width where the share is 0 or 1.
    """
    if count < 1:
        raise ValueError(f"count {count}: expected at least one trial")
    centre = share + _Z**2 / (2 * count)
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def chance_within(relevant: int, gallery: int, k: int) -> float:
    """The probability that a random order of `gallery` rows has one of `relevant` right ones among the first
    `k`."""
    miss = 1.0
    for place in range(min(k, gallery)):
        miss *= max(0, gallery - relevant - place) / (gallery - place)
    return 1 - miss
