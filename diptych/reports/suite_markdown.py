"""The report of `diptych evaluate all` as Markdown, for whoever reads text."""

from collections.abc import Iterator, Sequence

from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.suite.suite_rows import (
    class_rows,
    confused_pairs,
    group_rows,
    headline_rows,
    metric_rows,
    outcomes_in_words,
)
from diptych.evaluation.task_report import Outcomes, Report
from diptych.evaluation.zero_shot.reliability import reliability
from diptych.reports.markdown import markdown_table, markdown_text
from diptych.wording import metric_interval, metric_value

_CLASSES = 10  # rows of a table of classes
_PAIRS = 10


def markdown(results: Sequence[Result], model: str) -> str:
    """Return the table of all tasks, then a section each."""
    parts = [f"# {markdown_text(model)}\n", _summary(results)]
    for result in results:
        parts += [f"## {result.name}\n", *_section(result)]
    return "\n".join(parts)


def described(report: Report) -> str:
    """Return how a task was measured in one line: `classes 10, C 10,000, fits 16`."""
    told = {name: value for name, value in report.details.items() if name != "headline"}
    return ", ".join(
        f"{name.replace('_', ' ')} {_detail(value)}"
        for name, value in told.items()
        if isinstance(value, str | int | float)
    )


def _detail(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"


def _summary(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        for row in headline_rows(result):
            figures = (metric_value(row.metric, value) for value in (row.chance, row.majority))
            rows.append(
                (
                    row.task,
                    f"{row.count:,}",
                    row.metric.replace("_", " "),
                    metric_value(row.metric, row.value),
                    metric_interval(row.metric, row.interval),
                    *figures,
                )
            )
        if result.error is not None:
            rows.append((result.name, "-", "failed", "-", "-", "-", "-"))
    heads = ("task", "images", "metric", "value", "95 % interval", "chance", "majority")
    return markdown_table(heads, rows, "lrlrlrr")


def _section(result: Result) -> Iterator[str]:
    report = result.report
    if report is None:
        failed = None if result.error is None else f"Failed: {markdown_text(result.error)}"
        yield f"{failed or 'Not run: the suite stopped before this task'}\n"
        return
    how = described(report)
    yield (
        f"{report.task} on {markdown_text(report.data)}, {report.scores.count:,} images."
        f"{f' With {markdown_text(how)}.' if how else ''}{_skipped(report)}\n"
    )
    rows = [
        (
            row.metric.replace("_", " "),
            metric_value(row.metric, row.value),
            metric_interval(row.metric, row.interval),
            metric_value(row.metric, row.chance),
        )
        for row in metric_rows(result)
    ]
    yield markdown_table(("metric", "value", "95 % interval", "chance"), rows, "lrlr")
    groups = [
        (
            markdown_text(row.task),
            f"{row.count:,}",
            metric_value(row.metric, row.value),
            metric_interval(row.metric, row.interval),
        )
        for row in group_rows(result)
    ]
    if groups:
        metric = group_rows(result)[0].metric.replace("_", " ")
        yield markdown_table(("group", "images", metric, "95 % interval"), groups, "lrrl")
    outcomes = outcomes_in_words(result)
    if outcomes is not None:
        yield from _classes(outcomes)


def _classes(outcomes: Outcomes) -> Iterator[str]:
    found = reliability(outcomes)
    if found is not None:
        error, by_chance, stated, right = (
            metric_value("", value)
            for value in (found.error, found.by_chance, found.confidence, found.accuracy)
        )
        yield (
            f"Expected calibration error {error} (a calibrated model would show {by_chance} with as many images); mean "
            f"probability {stated}, right {right}.\n"
        )
    # One image says nothing of a class, nor of a pair of them.
    classes = [row for row in class_rows(outcomes) if row.count > 1]
    if classes:
        yield f"The {min(_CLASSES, len(classes))} classes of {len(classes):,} that are least often right:\n"
        rows = [
            (
                markdown_text(row.label),
                f"{row.count:,}",
                metric_value("", row.accuracy),
                "-" if row.mistaken_for is None else f"{markdown_text(row.mistaken_for)} ({row.times:,})",
            )
            for row in classes[:_CLASSES]
        ]
        yield markdown_table(("class", "images", "right", "mostly called"), rows, "lrrl")
    pairs = [
        (
            markdown_text(pair.target),
            markdown_text(pair.predicted),
            f"{pair.count:,}",
            metric_value("", pair.share),
        )
        for pair in confused_pairs(outcomes)
        if pair.count > 1
    ]
    if pairs:
        heads = ("the class", "was called", "images", "of the class")
        yield markdown_table(heads, pairs[:_PAIRS], "llrr")


def _skipped(report: Report) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.skipped.items())
    remarks = "".join(f" {markdown_text(remark)}." for remark in report.remarks)
    return (f" Skipped: {reasons}." if reasons else "") + remarks
