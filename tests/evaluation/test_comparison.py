"""Paired comparisons beside scipy, slow loops and hand-worked numbers; and pairs that do not belong together."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from diptych.errors import DataError
from diptych.evaluation.comparison import (
    compare,
    compare_suites,
    difference_interval,
    exact_mcnemar,
    holm,
    p_value,
)
from diptych.evaluation.task_report import Outcomes, Report, Scores

LABELS = ("cat", "dog", "owl")


def report(
    predicted: list[int],
    target: list[int] | None = None,
    keys: tuple[str, ...] | None = None,
    *,
    task: str = "zero-shot",
    labels: tuple[str, ...] = LABELS,
) -> Report:
    truth = np.array([number % 3 for number in range(len(predicted))] if target is None else target)
    answers = np.array(predicted)
    right = (answers == truth).astype(np.float32)
    return Report(
        task=task,
        model="m",
        data="d",
        scores=Scores(len(right), {"top1": float(right.mean()), "mean_per_class": 0.5}, {}, {}),
        outcomes=Outcomes(
            keys=keys or tuple(f"k{number}" for number in range(len(right))),
            scores={"top1": right},
            labels=labels,
            target=truth,
            predicted=answers,
        ),
    )


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (3, 9), (25, 25), (0, 40), (700, 500), (9000, 9400)]
)
def test_mcnemar_is_scipys_exact_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert exact_mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_signs_of_zeros_and_ones_are_mcnemars() -> None:
    differences = np.array([1.0] * 6 + [-1.0] * 2 + [0.0] * 30)
    assert p_value(differences) == exact_mcnemar(6, 2)


def test_drawn_signs_agree_with_all_signs() -> None:
    differences = np.array([0.5, 0.25, 0.25, -0.25, 1.0, 0.5, 1.0, -0.5, 0.0])
    seen = abs(differences.sum())
    every = [
        abs(np.dot(signs, differences)) >= seen
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    # 10,000 draws: a standard error of at most 0.005; 4 of them.
    assert p_value(differences) == pytest.approx(np.mean(every), abs=0.02)


def test_no_difference_is_no_evidence() -> None:
    assert p_value(np.zeros(20)) == 1.0


def test_p_values_are_uniform_where_models_are_alike() -> None:
    random = np.random.default_rng(0)
    found = [p_value(random.normal(size=20)) for _ in range(100)]
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_holm_is_the_hand_worked_correction() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_is_that_of_drawing_examples_one_by_one() -> None:
    random = np.random.default_rng(1)
    values = random.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.7, 0.2])
    means = [values[random.integers(0, 200, 200)].mean() for _ in range(10_000)]
    # Two sets of 10,000 draws of means that are multiples of 1/200: quantiles within a few of those.
    np.testing.assert_allclose(difference_interval(values), np.quantile(means, [0.025, 0.975]), atol=0.0101)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        low, high = difference_interval(random.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.6, 0.3]))
        covered += low <= 0.2 <= high
    assert 180 <= covered <= 199  # 95 % of 200, and 3 standard errors


def test_a_comparison_counts_what_changed() -> None:
    first = report([0, 1, 0, 0, 0, 2])  # right: 0, 1, 3, 5
    second = report([0, 2, 2, 0, 1, 2])  # right: 0, 2, 3, 4, 5
    found = compare("task", first, second)
    top1, per_class = found.differences
    assert (top1.first, top1.second, top1.gained, top1.lost) == (4 / 6, 5 / 6, 2, 1)
    assert top1.difference == pytest.approx(1 / 6)
    assert top1.p_value == exact_mcnemar(2, 1)
    assert top1.interval[0] < 1 / 6 < top1.interval[1]
    assert per_class.metric == "mean_per_class"
    assert per_class.difference == pytest.approx(1 / 6)
    assert per_class.p_value is None  # no headline, so not tested
    assert [(change.key, change.gained, change.target) for change in found.changes] == [
        ("k1", False, "dog"),
        ("k2", True, "owl"),
        ("k4", True, "dog"),
    ]
    assert (found.changes[1].first, found.changes[1].second) == ("cat", "owl")


def test_classes_of_unequal_size_count_alike_in_the_mean_per_class() -> None:
    target = [0] * 8 + [1] * 2
    found = compare("task", report([0] * 8 + [2, 2], target), report([0] * 8 + [1, 2], target))
    top1, per_class = found.differences
    assert top1.difference == pytest.approx(0.1)
    assert (per_class.first, per_class.second) == (0.5, 0.75)
    # One example of ten changes the mean by a quarter: the quantiles of a binomial count, in quarters.
    counts = stats.binom(10, 0.1).ppf([0.025, 0.975])
    assert per_class.interval == pytest.approx((0.25 * counts[0], 0.25 * counts[1]))


def test_classes_of_one_image_leave_the_interval_its_width() -> None:
    labels = tuple(f"class {number}" for number in range(40))
    target = list(range(40))
    found = compare(
        "task",
        report([0] * 40, target, labels=labels),
        report([*range(20), *[0] * 20], target, labels=labels),
    )
    top1, per_class = found.differences
    # The mean over classes is then the mean over images.
    assert per_class.interval == pytest.approx(top1.interval)


def test_a_datasets_own_metric_is_the_one_that_is_tested() -> None:
    target = [0] * 8 + [1] * 2
    reports = [
        replace(report(answers, target), scores=Scores(10, {"mean_per_class": 0.5, "top1": 0.5}, {}, {}))
        for answers in ([0] * 8 + [2, 2], [0] * 8 + [1, 1])
    ]
    top1, per_class = compare("task", *reports).differences
    assert top1.p_value is None
    assert per_class.p_value == exact_mcnemar(2, 0)


def test_the_order_of_examples_and_of_classes_does_not_matter() -> None:
    first, second = report([0, 1, 0, 0, 0, 2]), report([0, 2, 2, 0, 1, 2])
    outcomes = second.outcomes
    assert outcomes is not None
    assert outcomes.target is not None
    assert outcomes.predicted is not None
    turned = np.array([2, 1, 0])
    shuffled = replace(
        second,
        outcomes=replace(
            outcomes,
            keys=outcomes.keys[::-1],
            scores={"top1": outcomes.scores["top1"][::-1]},
            labels=LABELS[::-1],
            target=turned[outcomes.target[::-1]],
            predicted=turned[outcomes.predicted[::-1]],
        ),
    )
    assert compare("task", first, shuffled) == compare("task", first, second)


def test_examples_that_one_model_was_not_asked_are_counted_and_left_out() -> None:
    found = compare("task", report([0, 1, 2, 0]), report([0, 1, 0, 2], keys=("k0", "k1", "k2", "x")))
    assert (found.count, found.only_first, found.only_second) == (3, 1, 1)
    assert found.differences[0].first == 1.0
    assert found.differences[0].second == pytest.approx(2 / 3)


def test_equal_keys_are_paired_in_their_order() -> None:
    """Rows of a table that hold equal images have equal keys; here "a" is labelled dog in one row, emu in another."""
    first = report([0, 1, 2, 2], [0, 1, 2, 1], keys=("x", "a", "a", "y"))
    second = report([1, 1, 1], [1, 2, 1], keys=("a", "a", "y"))
    found = compare("task", first, second)
    assert (found.count, found.only_first, found.only_second) == (3, 1, 0)
    assert [(change.key, change.gained) for change in found.changes] == [("a", False), ("y", True)]


def test_pairs_that_do_not_belong_together_are_refused() -> None:
    first = report([0, 1, 2])
    with pytest.raises(
        DataError, match=r"task: no example in common \('k0' .* 'a' .*\); evaluate both models"
    ):
        compare("task", first, report([0, 1, 2], keys=("a", "b", "c")))
    with pytest.raises(DataError, match="'k1' is labelled 'dog' in the first and 'cat' in the second"):
        compare("task", first, report([0, 1, 2], [0, 0, 2]))
    with pytest.raises(DataError, match=r"other classes \('emu' is in one of them alone\)"):
        compare("task", first, report([0, 1, 2], labels=("cat", "dog", "emu")))
    with pytest.raises(DataError, match="zero-shot and linear-probe: not the same task"):
        compare("task", first, report([0, 1, 2], task="linear-probe"))
    with pytest.raises(DataError, match="has no outcomes"):
        compare("task", first, replace(first, outcomes=None))


def test_retrieval_among_other_images_is_refused() -> None:
    found, other = (
        Report(
            task="retrieval",
            model="m",
            data="d",
            scores=Scores(len(keys), {"image_to_text_r1": 0.5}, {}, {}),
            outcomes=Outcomes(keys=keys, scores={"image_to_text_r1": np.zeros(len(keys), np.float32)}),
        )
        for keys in (("a", "b", "c"), ("a", "b"))
    )
    with pytest.raises(DataError, match="1 images are only in the first and 0 only in the second"):
        compare("pairs", found, other)


def test_suites_are_compared_at_what_both_have_and_corrected_together() -> None:
    right, wrong = [number % 3 for number in range(12)], [0] * 12
    first = {"a": report(wrong), "b": report(right), "mine": report(right)}
    second = {"a": report(right), "b": report(right), "theirs": report(right), "c": report(right)}
    first["c"] = replace(report(right), outcomes=None)
    found = compare_suites(first, second)
    assert [task.name for task in found.tasks] == ["a", "b"]
    assert found.left_out == {
        "mine": "only the first has it",
        "theirs": "only the second has it",
        "c": "has no outcomes of single examples",
    }
    changed, same = (task.differences[0] for task in found.tasks)
    assert changed.p_value == exact_mcnemar(8, 0)
    assert changed.adjusted == 2 * exact_mcnemar(8, 0)
    assert (same.p_value, same.adjusted) == (1.0, 1.0)


def test_suites_without_a_common_task_are_an_error() -> None:
    with pytest.raises(DataError, match=r"no task to compare .*evaluate both models with the same suite"):
        compare_suites({"a": report([0])}, {"b": report([0])})
