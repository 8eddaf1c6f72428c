"""Two models on the same examples: paired differences, their intervals, and whether they may be chance.

Both models see the same examples, so what counts is where they differ: an interval of the differences is much
narrower than two intervals of two accuracies suggest.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import DataError
from diptych.evaluation.metrics import CONFIDENCE_LEVEL, Integers, Interval
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.task_report import Outcomes, Report

RESAMPLES = 10_000  # of the bootstrap, and of the signs
_NUMBERS_AT_ONCE = 10_000_000  # of a table of resamples: 80 MB

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One metric of two models, over the examples that both were asked.

    difference: second - first; `interval` is the bootstrap's. gained, lost: examples whose score rose, and fell.
    p_value: of the null hypothesis that the two models are alike, for a headline metric. adjusted: the same after
    Holm's correction for all headline metrics of a comparison.
    """

    metric: str
    first: float
    second: float
    interval: Interval
    gained: int
    lost: int
    p_value: float | None = None
    adjusted: float | None = None

    @property
    def difference(self) -> float:
        return self.second - self.first

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "interval": list(self.interval),
            "gained": self.gained,
            "lost": self.lost,
            "p_value": self.p_value,
            "p_adjusted": self.adjusted,
        }


@dataclass(frozen=True)
class Change:
    """An example whose score in the first metric, top-1 for classes, is another. Classes are None where there are
    none."""

    key: str
    gained: bool
    target: str | None
    first: str | None  # what each model predicted
    second: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "gained": self.gained,
            "target": self.target,
            "first": self.first,
            "second": self.second,
        }


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Two models at one task. only_first, only_second: examples that the other was not asked, and so left out."""

    name: str
    task: str
    count: int
    only_first: int
    only_second: int
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]

    def to_json(self, most: int) -> dict[str, Any]:
        """Return the figures and the first `most` changes as JSON has them."""
        return {
            "name": self.name,
            "task": self.task,
            "count": self.count,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "differences": [one.to_json() for one in self.differences],
            "changed": len(self.changes),
            "changes": [one.to_json() for one in self.changes[:most]],
        }


@dataclass(frozen=True)
class Comparison:
    """Two models at the tasks that both did. left_out: the other tasks, and why."""

    tasks: tuple[TaskComparison, ...]
    left_out: Mapping[str, str]


def compare_suites(first: Mapping[str, Report], second: Mapping[str, Report], *, seed: int = 0) -> Comparison:
    """Compare two models at each task that both did, by the tasks' names.

    One p-value a headline metric (top-1; for retrieval, R@1 of both directions) goes into Holm's correction: the
    other metrics of a task repeat much of the same, and are there to be read, not to be tested.

    Raises:
        DataError: they have no task in common, or a task was another one: other classes, other labels.
    """
    left_out = {name: "only the first has it" for name in first if name not in second}
    left_out |= {name: "only the second has it" for name in second if name not in first}
    both = [name for name in first if name in second]
    for name in both:
        if first[name].outcomes is None or second[name].outcomes is None:
            left_out[name] = "has no outcomes of single examples"
    compared = [compare(name, first[name], second[name], seed=seed) for name in both if name not in left_out]
    if not compared:
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "neither has any"
        raise DataError(f"no task to compare ({said}); evaluate both models with the same suite")
    return Comparison(_corrected(compared), left_out)


def compare(name: str, first: Report, second: Report, *, seed: int = 0) -> TaskComparison:
    """Compare two models at one task, both of whose reports have outcomes; `adjusted` stays open.

    Raises:
        DataError: no example in common; for retrieval, not the same examples; or other classes or labels.
    """
    if first.task != second.task:
        raise DataError(f"{name}: {first.task} and {second.task}: not the same task; compare like with like")
    pairs = _Pairs.of(name, first, second)
    measured = [_difference(metric, *change, seed) for metric, change in pairs.scores()]
    if pairs.target is not None and "mean_per_class" in first.scores.metrics:
        measured.append(_of_classes(pairs, seed))
    if not measured:
        raise DataError(
            f"{name}: the two reports have no metric in common; evaluate both with the same suite"
        )
    # Where the headline is no mean over examples (an area under a curve), the first that is one stands for it.
    tested = {*headlines(first)} & {one.metric for one in measured} or {measured[0].metric}
    return TaskComparison(
        name=name,
        task=first.task,
        count=len(pairs.keys),
        only_first=pairs.only_first,
        only_second=pairs.only_second,
        differences=tuple(one if one.metric in tested else replace(one, p_value=None) for one in measured),
        changes=tuple(pairs.changes()),
    )


def exact_mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947): a fair coin for each example that changed.

    gained: examples that only the second model has right; lost: those that only the first has right.
    """
    from scipy import stats  # noqa: PLC0415 - takes 0.6 s, and a model is already there when it is needed

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def p_value(differences: Doubles, *, seed: int = 0) -> float:
    """Return the two-sided p-value of the hypothesis that the sign of each difference is a fair coin's.

    differences: (n,). Where they are -1, 0 and 1, of 0/1 scores, this is `exact_mcnemar`. Else signs are drawn
    (Fisher's randomisation test): no value below 1 / (1 + the number of draws) can come out.
    """
    size, count = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if len(size) <= 1:
        return exact_mcnemar(int(np.sum(differences > 0)), int(np.sum(differences < 0)))
    seen = abs(float(differences.sum()))
    random = np.random.default_rng(seed)
    drawn = np.zeros(RESAMPLES)
    for one, times in zip(size, count, strict=True):
        drawn += one * (2.0 * random.binomial(times, 0.5, RESAMPLES) - times)
    # Sums that are equal on paper differ in the last digits.
    as_far = np.count_nonzero(np.abs(drawn) >= seen * (1 - 1e-9))
    return (1 + as_far) / (1 + RESAMPLES)


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction (1979): at a level, the chance of one or more false alarms among all is at most
    that level. In the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def difference_interval(differences: Doubles, *, seed: int = 0) -> Interval:
    """Return the bootstrap's percentile interval at 95 % of the mean of (n,) differences.

    Drawing n examples is drawing how often each distinct value occurs: the same distribution, at a cost that depends
    on the number of distinct values.
    """
    random = np.random.default_rng(seed)
    level, count = np.unique(differences, return_counts=True)
    rows = max(1, _NUMBERS_AT_ONCE // len(level))
    means = np.concatenate(
        [
            random.multinomial(len(differences), count / len(differences), size=min(rows, RESAMPLES - start))
            @ level
            / len(differences)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class _Pairs:
    """The examples of both outcomes, row by row. rows: of each outcomes, where those examples stand."""

    keys: tuple[str, ...]
    outcomes: tuple[Outcomes, Outcomes]
    rows: tuple[Integers, Integers]
    only_first: int
    only_second: int
    target: tuple[str, ...] | None

    @classmethod
    def of(cls, name: str, first: Report, second: Report) -> "_Pairs":
        sides = _outcomes(name, first), _outcomes(name, second)
        place = {key: row for row, key in enumerate(_numbered(sides[1].keys))}
        rows = [(row, place[key]) for row, key in enumerate(_numbered(sides[0].keys)) if key in place]
        if not rows:
            raise DataError(
                f"{name}: no example in common ({sides[0].keys[0]!r} is the first of one, {sides[1].keys[0]!r} "
                "of the other); evaluate both models on the same data, and again what an older Diptych has evaluated"
            )
        only_first, only_second = len(sides[0].keys) - len(rows), len(sides[1].keys) - len(rows)
        if first.task == "retrieval" and only_first + only_second:
            raise DataError(
                f"{name}: {only_first} images are only in the first and {only_second} only in the second; "
                "what is found depends on all that can be found, so evaluate both models on the same data"
            )
        taken = np.array(rows, np.int64).T
        keys = tuple(sides[0].keys[row] for row in taken[0])
        target = _common_target(name, keys, sides, (taken[0], taken[1]))
        return cls(keys, sides, (taken[0], taken[1]), only_first, only_second, target)

    def scores(self) -> Iterator[tuple[str, tuple[Doubles, Doubles]]]:
        """Return the scores of both models, for each metric that both have."""
        one, other = self.outcomes
        for metric in one.scores:
            if metric in other.scores:
                yield metric, self._score(metric)

    def _score(self, metric: str) -> tuple[Doubles, Doubles]:
        first, second = (
            outcomes.scores[metric][rows].astype(np.float64)
            for outcomes, rows in zip(self.outcomes, self.rows, strict=True)
        )
        return first, second

    def changes(self) -> Iterator[Change]:
        _, (first, second) = next(self.scores())
        said = [
            _names(outcomes, outcomes.predicted, rows)
            for outcomes, rows in zip(self.outcomes, self.rows, strict=True)
        ]
        for row in np.flatnonzero(first != second).tolist():
            yield Change(
                key=self.keys[row],
                gained=bool(second[row] > first[row]),
                target=None if self.target is None else self.target[row],
                first=None if said[0] is None else said[0][row],
                second=None if said[1] is None else said[1][row],
            )


def _outcomes(name: str, report: Report) -> Outcomes:
    if report.outcomes is None or not report.outcomes.keys:
        raise DataError(f"{name}: has no outcomes of single examples; evaluate it again with a suite")
    return report.outcomes


def _numbered(keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Number equal keys in their order: rows of a table that hold equal images have equal keys."""
    seen: Counter[str] = Counter()
    for key in keys:
        yield key, seen[key]
        seen[key] += 1


def _common_target(
    name: str, keys: Sequence[str], sides: tuple[Outcomes, Outcomes], rows: tuple[Integers, Integers]
) -> tuple[str, ...] | None:
    if set(sides[0].labels) != set(sides[1].labels):
        strange = sorted(set(sides[0].labels) ^ set(sides[1].labels))
        raise DataError(
            f"{name}: other classes ({strange[0]!r} is in one of them alone); a choice among other classes is another "
            "task, so evaluate both models with the same labels"
        )
    first, second = (
        _names(outcomes, outcomes.target, where) for outcomes, where in zip(sides, rows, strict=True)
    )
    if first is None or second is None:
        return None
    for key, one, other in zip(keys, first, second, strict=True):
        if one != other:
            raise DataError(
                f"{name}: {key!r} is labelled {one!r} in the first and {other!r} in the second; evaluate both "
                "models on the same data"
            )
    return first


def _names(outcomes: Outcomes, column: Integers | None, rows: Integers) -> tuple[str, ...] | None:
    if column is None or not outcomes.labels:
        return None
    return tuple(outcomes.labels[number] for number in column[rows].tolist())


def _difference(metric: str, first: Doubles, second: Doubles, seed: int) -> Difference:
    change = second - first
    return Difference(
        metric=metric,
        first=float(first.mean()),
        second=float(second.mean()),
        interval=difference_interval(change, seed=seed),
        gained=int(np.sum(change > 0)),
        lost=int(np.sum(change < 0)),
        p_value=p_value(change, seed=seed),
    )


def _of_classes(pairs: _Pairs, seed: int) -> Difference:
    """Compare the mean per-class accuracy: a mean over examples that weigh as their classes are rare."""
    assert pairs.target is not None
    _, column, count = np.unique(np.array(pairs.target), return_inverse=True, return_counts=True)
    weight = len(column) / (len(count) * count[column])
    right = []
    for outcomes, rows in zip(pairs.outcomes, pairs.rows, strict=True):
        assert outcomes.predicted is not None
        assert outcomes.target is not None
        right.append(weight * (outcomes.predicted[rows] == outcomes.target[rows]))
    return _difference("mean_per_class", right[0], right[1], seed)


def _corrected(tasks: Sequence[TaskComparison]) -> tuple[TaskComparison, ...]:
    """Return the tasks with Holm's correction over all of their p-values."""
    tested = [one.p_value for task in tasks for one in task.differences if one.p_value is not None]
    adjusted = iter(holm(tested))
    return tuple(
        replace(
            task,
            differences=tuple(
                one if one.p_value is None else replace(one, adjusted=next(adjusted))
                for one in task.differences
            ),
        )
        for task in tasks
    )
