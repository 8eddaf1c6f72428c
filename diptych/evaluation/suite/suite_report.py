"""What a suite's results say: rows of tables, classes, confusions and mistakes, for a page or as Markdown."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.evaluation.metrics import Interval, confusion_matrix, wilson
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.zero_shot.reliability import (
    Bin,
    bins_of_equal_width,
    error_if_calibrated,
    expected_calibration_error,
)

_CLASSES = 10  # rows of a table of classes, in Markdown
_PAIRS = 10


@dataclass(frozen=True)
class Row:
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
    """One class: how many examples it has, how many were right, and what the wrong ones were called most often."""

    label: str
    count: int
    right: int
    mistaken_for: str | None
    times: int  # that it was

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


@dataclass(frozen=True)
class Reliability:
    """Whether the probabilities of a task can be believed.

    error: the expected calibration error of `curve`; by_chance: what a calibrated model would show on average.
    confidence, accuracy: means over all examples; the first is larger where the model is too sure of itself.
    """

    curve: tuple[Bin, ...]
    error: float
    by_chance: float
    confidence: float
    accuracy: float


def headline_rows(result: Result) -> list[Row]:
    """The metrics that a task is told by, of all of its data."""
    report = result.report
    if report is None:
        return []
    return [_row(result.name, report, report.scores, metric) for metric in headlines(report)]


def group_rows(result: Result) -> list[Row]:
    """The first of those metrics for each part of the data; `task` is the part's name."""
    report = result.report
    if report is None:
        return []
    metric = headlines(report)[0]
    parts = ((name, scores) for name, scores in report.groups.items() if metric in scores.metrics)
    return [_row(name, report, scores, metric) for name, scores in parts]


def metric_rows(result: Result) -> list[Row]:
    """Every metric of a task."""
    report = result.report
    if report is None:
        return []
    return [_row(result.name, report, report.scores, metric) for metric in report.scores.metrics]


def outcomes_in_words(result: Result) -> Outcomes | None:
    """The outcomes of a task that has classes, these called as people call them; else None."""
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
    """The classes that occur, as truth or as answer, and how many examples of each, a row, were called what, a column.

    In the order of the classifier's columns.
    """
    assert outcomes.target is not None
    assert outcomes.predicted is not None
    matrix = confusion_matrix(outcomes.target, outcomes.predicted, len(outcomes.labels))
    used = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    return tuple(outcomes.labels[number] for number in used), matrix[np.ix_(used, used)]


def class_rows(outcomes: Outcomes) -> list[ClassRow]:
    """The classes that have examples, the least often right first."""
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
    """The pairs of classes that were confused, the most frequent first; of equal counts, the larger share first."""
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


def reliability(outcomes: Outcomes) -> Reliability | None:
    """The reliability of the stated probabilities; None where a task states none."""
    if outcomes.probability is None or outcomes.target is None or outcomes.predicted is None:
        return None
    correct = outcomes.predicted == outcomes.target
    curve = bins_of_equal_width(outcomes.probability, correct)
    return Reliability(
        curve=tuple(curve),
        error=expected_calibration_error(curve),
        by_chance=error_if_calibrated(outcomes.probability),
        confidence=float(outcomes.probability.mean(dtype=np.float64)),
        accuracy=float(correct.mean()),
    )


def sample_mistakes(outcomes: Outcomes, most: int, *, seed: int = 0) -> list[int]:
    """At most `most` rows of wrong answers, chosen at random, in the order of the data; the same for equal outcomes."""
    if outcomes.target is None or outcomes.predicted is None:
        return []
    wrong = np.flatnonzero(outcomes.predicted != outcomes.target)
    chosen = np.random.default_rng(seed).permutation(wrong)[:most]
    return sorted(chosen.tolist())


def described(report: Report) -> str:
    """How a task was measured, as far as one line holds it: `classes 10, C 10,000, fits 16`."""
    told = {name: value for name, value in report.details.items() if name != "headline"}
    return ", ".join(
        f"{name.replace('_', ' ')} {_number(value)}"
        for name, value in told.items()
        if isinstance(value, str | int | float)
    )


def markdown(results: Sequence[Result], model: str) -> str:
    """The report for whoever reads text: the table of all tasks, then a section each."""
    lines = [f"# {_plain(model)}", "", *_summary(results)]
    for result in results:
        lines += ["", f"## {result.name}", "", *_section(result)]
    return "\n".join(lines) + "\n"


def _row(name: str, report: Report, scores: Scores, metric: str) -> Row:
    return Row(
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


def shown(metric: str, value: float | None) -> str:
    """A metric's value as text: ranks count, all else are shares."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.1f}" if metric.endswith("rank") else f"{100 * value:.1f} %"


def _number(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"


def interval_shown(metric: str, interval: Interval | None) -> str:
    """An interval as text."""
    return "-" if interval is None else f"{shown(metric, interval[0])} to {shown(metric, interval[1])}"


def _summary(results: Sequence[Result]) -> Iterator[str]:
    yield "| task | images | metric | value | 95 % interval | chance | majority |"
    yield "|---|---:|---|---:|---|---:|---:|"
    for result in results:
        for row in headline_rows(result):
            yield (
                f"| {row.task} | {row.count:,} | {row.metric.replace('_', ' ')} | {shown(row.metric, row.value)} "
                f"| {interval_shown(row.metric, row.interval)} | {shown(row.metric, row.chance)} "
                f"| {shown(row.metric, row.majority)} |"
            )
        if result.error is not None:
            yield f"| {result.name} | - | failed | - | - | - | - |"


def _section(result: Result) -> Iterator[str]:
    report = result.report
    if report is None:
        yield f"Failed: {_plain(result.error or 'it was not come to')}"
        return
    how = described(report)
    yield (
        f"{report.task} on {_plain(report.data)}, {report.scores.count:,} images."
        f"{f' With {_plain(how)}.' if how else ''}{_skipped(report)}"
    )
    yield ""
    yield "| metric | value | 95 % interval | chance |"
    yield "|---|---:|---|---:|"
    for row in metric_rows(result):
        yield (
            f"| {row.metric.replace('_', ' ')} | {shown(row.metric, row.value)} "
            f"| {interval_shown(row.metric, row.interval)} | {shown(row.metric, row.chance)} |"
        )
    groups = group_rows(result)
    if groups:
        yield from ("", f"| group | images | {groups[0].metric.replace('_', ' ')} | 95 % interval |")
        yield "|---|---:|---:|---|"
        for row in groups:
            yield (
                f"| {_plain(row.task)} | {row.count:,} | {shown(row.metric, row.value)} "
                f"| {interval_shown(row.metric, row.interval)} |"
            )
    outcomes = outcomes_in_words(result)
    if outcomes is not None:
        yield from _of_classes(outcomes)


def _of_classes(outcomes: Outcomes) -> Iterator[str]:
    found = reliability(outcomes)
    if found is not None:
        yield ""
        yield (
            f"Expected calibration error {shown('', found.error)} (a calibrated model would show "
            f"{shown('', found.by_chance)} with as many images); mean probability {shown('', found.confidence)}, "
            f"right {shown('', found.accuracy)}."
        )
    # One image says nothing of a class, nor of a pair of them.
    classes = [row for row in class_rows(outcomes) if row.count > 1]
    if classes:
        shown_classes = min(_CLASSES, len(classes))
        yield from ("", f"The {shown_classes} classes of {len(classes):,} that are least often right:", "")
        yield "| class | images | right | mostly called |"
        yield "|---|---:|---:|---|"
    for row in classes[:_CLASSES]:
        called = "-" if row.mistaken_for is None else f"{_plain(row.mistaken_for)} ({row.times:,})"
        yield f"| {_plain(row.label)} | {row.count:,} | {shown('', row.accuracy)} | {called} |"
    pairs = [pair for pair in confused_pairs(outcomes) if pair.count > 1]
    if pairs:
        yield from ("", "| the class | was called | images | of the class |", "|---|---|---:|---:|")
    for pair in pairs[:_PAIRS]:
        yield (
            f"| {_plain(pair.target)} | {_plain(pair.predicted)} | {pair.count:,} | {shown('', pair.share)} |"
        )


def _skipped(report: Report) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.skipped.items())
    remarks = "".join(f" {_plain(remark)}." for remark in report.remarks)
    return (f" Skipped: {reasons}." if reasons else "") + remarks


def _plain(text: str) -> str:
    """Names of other people's making, with what Markdown and HTML would read as their own made harmless."""
    return "".join(
        f"\\{letter}" if letter in "\\`*_[]<>|#&~$" else letter for letter in " ".join(text.split())
    )
