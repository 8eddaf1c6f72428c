"""Ranks, shares, areas and intervals against slow loops, scipy, scikit-learn and hand-worked numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from diptych.evaluation.metrics import (
    Floats,
    average_precisions,
    bootstrap_interval,
    chance_within,
    confusion_matrix,
    first_relevant,
    map11,
    map11_interval,
    mean_interval,
    mean_per_class,
    mean_per_class_interval,
    roc_auc,
    roc_auc_interval,
    share_within,
    wilson,
)


def unit(generator: np.random.Generator, rows: int, dim: int = 8) -> Floats:
    vectors = generator.normal(size=(rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


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
    same = np.full((50, 4), 0.5, np.float32)
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


def slow_average_precision(score: np.ndarray, relevant: np.ndarray) -> float:
    """In fractions: at each threshold that occurs, precision and recall; then the eleven recalls one by one."""
    points = []
    for threshold in sorted(set(score.tolist())):
        taken = [right for value, right in zip(score, relevant, strict=True) if value >= threshold]
        points.append((Fraction(sum(taken), len(taken)), Fraction(sum(taken), int(relevant.sum()))))
    best = [
        max(precision for precision, recall in points if recall >= Fraction(tenth, 10)) for tenth in range(11)
    ]
    return float(sum(best) / 11)


def test_11_point_average_precision_of_a_hand_worked_ranking() -> None:
    # Right at places 1, 3 and 4 of 5. Precision 1, 1/2, 2/3, 3/4, 3/5 at recall 1/3, 1/3, 2/3, 1, 1: the best from
    # recalls 0, .1, .2, .3 on is 1, from .4 to 1 it is 3/4.
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
    relevant = np.array([True, False, True, True, False])
    assert map11(score[:, None], relevant[:, None]) == pytest.approx((4 + 7 * 0.75) / 11)
    # It is not the area under the curve, (1 + 2/3 + 3/4) / 3.
    assert sklearn.average_precision_score(relevant, score) == pytest.approx(29 / 36)


def test_a_recall_of_three_tenths_reaches_the_fourth_point() -> None:
    # In floating point 3 * 0.1 is more than 3 / 10. Right: the first three, then seven at the end of thirty.
    relevant = np.array([True] * 3 + [False] * 20 + [True] * 7)
    score = -np.arange(30, dtype=np.float32)
    assert map11(score[:, None], relevant[:, None]) == pytest.approx((4 * 1 + 7 * 10 / 30) / 11)


@pytest.mark.parametrize("seed", range(8))
def test_11_point_average_precisions_equal_a_slow_loop_in_fractions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Whole numbers tie often.
    scores = generator.integers(0, 12, (40, 5)).astype(np.float32)
    relevant = generator.random((40, 5)) < 0.3
    judged = relevant | (generator.random((40, 5)) < 0.8)
    for flags in (None, judged):
        found = average_precisions(scores, relevant, flags)
        for column in range(5):
            kept = np.ones(40, bool) if flags is None else flags[:, column]
            expected = slow_average_precision(scores[kept, column], relevant[kept, column])
            assert found[column] == pytest.approx(expected, abs=1e-12)
        assert map11(scores, relevant, flags) == pytest.approx(found.mean(), abs=1e-12)


def test_the_order_of_tied_examples_means_nothing_to_average_precision() -> None:
    relevant = np.array([[True], [False], [False], [False]])
    same = np.zeros((4, 1), np.float32)
    assert map11(same, relevant) == map11(same, relevant[::-1]) == 0.25


def test_classes_that_no_example_shows_do_not_enter_the_mean() -> None:
    scores = np.array([[3, 1], [2, 2], [1, 3]], np.float32)
    relevant = np.array([[True, False], [False, False], [False, False]])
    assert map11(scores, relevant) == 1
    assert math.isnan(average_precisions(scores, relevant)[1])
    assert math.isnan(map11(scores, np.zeros_like(relevant)))


def test_roc_auc_of_hand_worked_pairs_counts_ties_half() -> None:
    # Pairs of a positive with a negative: 2 over 1, 2 over 0, 1 over 0, and 1 beside 1.
    score = np.array([2, 1, 1, 0], np.float32)
    assert roc_auc(score, np.array([True, True, False, False])) == 3.5 / 4
    assert roc_auc(np.zeros(4, np.float32), np.array([True, True, False, False])) == 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [4, 1000])
def test_roc_auc_equals_scikit_learn(seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    score = generator.integers(0, levels, 300).astype(np.float32)
    positive = generator.random(300) < 0.2
    assert roc_auc(score, positive) == pytest.approx(sklearn.roc_auc_score(positive, score), abs=1e-12)


def test_confusion_matrix_and_its_diagonal_equal_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target, predicted = generator.integers(0, 6, (2, 200))
    target[target == 4] = 3  # a class that does not occur
    found = confusion_matrix(target, predicted, 7)
    np.testing.assert_array_equal(found, sklearn.confusion_matrix(target, predicted, labels=range(7)))
    seen = found.sum(axis=1) > 0
    recall = np.diag(found)[seen] / found.sum(axis=1)[seen]
    assert mean_per_class(target == predicted, target) == pytest.approx(recall.mean())


def test_bootstrap_interval_of_a_mean_is_the_normal_one_where_examples_are_many() -> None:
    values = np.random.default_rng(0).choice([0, 0.5, 1], 2000, p=[0.5, 0.3, 0.2]).astype(np.float32)
    spread = 1.96 * float(values.std()) / math.sqrt(len(values))
    # A quantile of 1,000 draws scatters by a twentieth of the spread.
    expected = (float(values.mean()) - spread, float(values.mean()) + spread)
    assert mean_interval(values) == pytest.approx(expected, abs=0.15 * spread)


def test_bootstrap_gives_the_same_interval_for_the_same_seed() -> None:
    values = np.random.default_rng(0).random(30)
    intervals = [
        bootstrap_interval(lambda times: float(values @ times), 30, draws=50, seed=seed) for seed in (1, 1, 2)
    ]
    assert intervals[0] == intervals[1] != intervals[2]


def test_interval_of_roc_auc_is_as_wide_as_delongs() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(600) < 200
    score = (generator.normal(size=600) + positive).astype(np.float32)
    # DeLong et al. 1988: the variance of the share of the other kind that each example beats, over its kind.
    beaten = (score[positive][:, None] > score[~positive]).astype(float)
    rows, columns = beaten.mean(axis=1), beaten.mean(axis=0)
    spread = 1.96 * math.sqrt(rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns))
    area = roc_auc(score, positive)
    # A quantile of 1,000 draws scatters by a twentieth of the spread.
    assert roc_auc_interval(score, positive) == pytest.approx(
        (area - spread, area + spread), abs=0.15 * spread
    )


def test_interval_of_map11_is_that_of_examples_drawn_again() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 9, (25, 3)).astype(np.float32)
    relevant = generator.random((25, 3)) < 0.4
    judged = relevant | (generator.random((25, 3)) < 0.7)
    drawn = np.random.default_rng(0)  # the seed of the interval: the draws are the same
    repeated = []
    for _ in range(1000):
        rows = drawn.integers(0, 25, 25)
        repeated.append(map11(scores[rows], relevant[rows], judged[rows]))
    expected = np.nanquantile(repeated, [0.025, 0.975])
    assert map11_interval(scores, relevant, judged) == pytest.approx(expected, abs=1e-12)
