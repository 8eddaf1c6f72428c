"""The rows of a suite's tables: metrics, classes, confusions, reliability and mistakes."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from diptych.evaluation.metrics import Interval, confusion_matrix, wilson
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.task_report import Outcomes, Report, Scores


@dataclass(frozen=True)
class MetricRow:
    """One metric of one task, or of a part of its data."""

    task: str
    kind: str
    data: str
    count: int
    metric: str
    value: float
    interval: Interval | None
    chance: float | None
    majority: float | None  # what always naming the most frequent class gives, where there are classes


@dataclass(frozen=True)
class ClassRow:
    """One class: how many examples it has, how many were right, and which other class was predicted most often."""

    label: str
    count: int
    right: int
    mistaken_for: str | None
    times: int  # how often that class was predicted

    @property
    def accuracy(self) -> float:
        return self.right / self.count

    @property
    def interval(self) -> Interval:
        return wilson(self.accuracy, self.count)


@dataclass(frozen=True)
class Confusion:
    """`count` examples of one class were called another; `share` of that class."""

    target: str
    predicted: str
    count: int
    share: float


def headline_rows(result: Result) -> list[MetricRow]:
    """Return the headline metrics of a task, over all of its data."""
    report = result.report
    if report is None:
        return []
    return [_row(result.name, report, report.scores, metric) for metric in headlines(report)]


def group_rows(result: Result) -> list[MetricRow]:
    """Return the first headline metric for each part of the data; `task` is the part's name."""
    report = result.report
    if report is None:
        return []
    metric = headlines(report)[0]
    parts = ((name, scores) for name, scores in report.groups.items() if metric in scores.metrics)
    return [_row(name, report, scores, metric) for name, scores in parts]


def metric_rows(result: Result) -> list[MetricRow]:
    """Return every metric of a task."""
    report = result.report
    if report is None:
        return []
    return [_row(result.name, report, report.scores, metric) for metric in report.scores.metrics]


def outcomes_in_words(result: Result) -> Outcomes | None:
    """Return the outcomes of a task with its classes called as people call them; None if it has no classes."""
    outcomes = None if result.report is None else result.report.outcomes
    if outcomes is None or outcomes.target is None or outcomes.predicted is None:
        return None
    phrases = [result.phrases.get(name, name) for name in outcomes.labels]
    # Two classes may have one phrase: ImageNet has two missiles.
    times = Counter(phrases)
    labels = tuple(
        phrase if times[phrase] == 1 else f"{phrase} ({name})"
        for phrase, name in zip(phrases, outcomes.labels, strict=True)
    )
    return replace(outcomes, labels=labels)


def confusions(outcomes: Outcomes) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes that occur, as label or as prediction, and their confusion matrix.

    The matrix has a row a label and a column a prediction, in the order of the classifier's columns.
    """
    assert outcomes.target is not None
    assert outcomes.predicted is not None
    matrix = confusion_matrix(outcomes.target, outcomes.predicted, len(outcomes.labels))
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    return tuple(outcomes.labels[number] for number in used), matrix[np.ix_(used, used)]


def class_rows(outcomes: Outcomes) -> list[ClassRow]:
    """Return the classes that have examples, the lowest accuracy first."""
    labels, matrix = confusions(outcomes)
    rows = []
    for number, label in enumerate(labels):
        count, right = int(matrix[number].sum()), int(matrix[number, number])
        if not count:
            continue
        wrong = matrix[number].copy()
        wrong[number] = 0
        often = int(wrong.argmax())
        times = int(wrong[often])
        rows.append(ClassRow(label, count, right, labels[often] if times else None, times))
    return sorted(rows, key=lambda row: (row.accuracy, -row.count))


def confused_pairs(outcomes: Outcomes) -> list[Confusion]:
    """Return the pairs of classes that were confused: the most frequent first, then the larger share."""
    labels, matrix = confusions(outcomes)
    totals = matrix.sum(axis=1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [
        Confusion(
            labels[row], labels[column], int(wrong[row, column]), float(wrong[row, column] / totals[row])
        )
        for row, column in np.argwhere(wrong).tolist()
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))


def sample_mistakes(outcomes: Outcomes, most: int, *, seed: int = 0) -> list[int]:
    """Return at most `most` rows of wrong answers, drawn at random by `seed`, in the order of the data."""
    if outcomes.target is None or outcomes.predicted is None:
        return []
    wrong = np.flatnonzero(outcomes.predicted != outcomes.target)
    chosen = np.random.default_rng(seed).permutation(wrong)[:most]
    return sorted(chosen.tolist())


def _row(name: str, report: Report, scores: Scores, metric: str) -> MetricRow:
    return MetricRow(
        task=name,
        kind=report.task,
        data=report.data,
        count=scores.count,
        metric=metric,
        value=scores.metrics[metric],
        interval=scores.confidence.get(metric),
        chance=scores.chance.get(metric),
        majority=scores.chance.get("majority"),
    )
