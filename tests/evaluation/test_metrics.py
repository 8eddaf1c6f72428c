"""Ranks, shares and intervals against slow loops, scipy and hand-worked numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from diptych.evaluation.metrics import (
    chance_within,
    first_relevant,
    mean_per_class,
    mean_per_class_interval,
    share_within,
    wilson,
)


def unit(generator: np.random.Generator, rows: int, dim: int = 8) -> np.ndarray:
    vectors = generator.normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_rank(scores: np.ndarray, relevant: list[int]) -> int:
    """Sort by score, then by row, and walk down to the first right one."""
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    return next(rank for rank, row in enumerate(order) if row in relevant)


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_ranks_equal_a_sorted_list_walked_down(chunk: int) -> None:
    generator = np.random.default_rng(0)
    # Vectors of a few small whole numbers tie often, and exactly.
    queries = generator.integers(-1, 2, (40, 4)).astype(np.float32)
    gallery = generator.integers(-1, 2, (25, 4)).astype(np.float32)
    relevant = [
        generator.choice(25, generator.integers(1, 5), replace=False).tolist() for _ in range(len(queries))
    ]
    ranks, tied = first_relevant(queries, gallery, relevant, chunk=chunk)
    scores = queries @ gallery.T
    assert ranks.tolist() == [slow_rank(row, right) for row, right in zip(scores, relevant, strict=True)]
    for row, right, flag in zip(scores, relevant, tied, strict=True):
        wrong = [score for column, score in enumerate(row) if column not in right]
        assert flag == (max(row[right]) in wrong)
    assert 0 < tied.mean() < 1


def test_a_model_that_says_the_same_of_everything_gets_no_credit() -> None:
    same = np.ones((50, 4), np.float32) / 2
    ranks, tied = first_relevant(same, same, [[row] for row in range(50)])
    assert share_within(ranks, 1) == 1 / 50
    assert ranks.tolist() == list(range(50))
    assert tied.all()


def test_top_1_equals_argmax() -> None:
    generator = np.random.default_rng(1)
    images, classes = unit(generator, 200), unit(generator, 9)
    target = generator.integers(0, 9, 200)
    ranks, _ = first_relevant(images, classes, target[:, None].tolist())
    assert share_within(ranks, 1) == np.mean((images @ classes.T).argmax(axis=1) == target)


def test_mean_per_class_differs_from_accuracy_where_classes_are_uneven() -> None:
    # Four of class 0, all right; two of class 2, one right; class 1 does not occur: (1 + 1/2) / 2.
    correct = np.array([True, True, True, True, True, False])
    target = np.array([0, 0, 0, 0, 2, 2])
    assert mean_per_class(correct, target) == 0.75
    assert correct.mean() == pytest.approx(5 / 6)


def test_interval_of_the_mean_of_even_classes_is_wilsons() -> None:
    target = np.repeat(np.arange(5), 20)
    correct = np.random.default_rng(2).random(100) < 0.4
    assert mean_per_class_interval(correct, target) == pytest.approx(wilson(float(correct.mean()), 100))


@pytest.mark.parametrize("accuracy", [(0.3,) * 4, (0.1, 0.9, 0.4, 0.6)])
def test_interval_of_the_mean_of_uneven_classes_covers_the_truth(accuracy: tuple[float, ...]) -> None:
    generator = np.random.default_rng(4)
    target = np.repeat(np.arange(4), [5, 60, 10, 200])
    chance = np.array(accuracy)[target]
    draws = [generator.random(len(target)) < chance for _ in range(2000)]
    covered = [
        low <= np.mean(accuracy) <= high for low, high in (mean_per_class_interval(d, target) for d in draws)
    ]
    assert np.mean(covered) >= 0.94


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (412, 1399), (1, 1)])
def test_wilson_interval_equals_scipy(successes: int, count: int) -> None:
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert wilson(successes / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    hits = generator.binomial(80, 0.1, 4000)
    covered = [low <= 0.1 <= high for low, high in (wilson(hit / 80, 80) for hit in hits.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_no_trials_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson(0.0, 0)


@pytest.mark.parametrize(("relevant", "gallery", "k"), [(1, 10, 1), (3, 10, 5), (2, 4, 10), (5, 100, 10)])
def test_chance_equals_counting_the_draws_without_a_right_one(relevant: int, gallery: int, k: int) -> None:
    k_inside = min(k, gallery)
    expected = 1 - math.comb(gallery - relevant, k_inside) / math.comb(gallery, k_inside)
    assert chance_within(relevant, gallery, k) == pytest.approx(expected)
