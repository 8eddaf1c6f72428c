"""The page that `diptych evaluate all` writes: every task of a suite, its classes and its mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.suite.suite_rows import (
    ClassRow,
    Confusion,
    MetricRow,
    class_rows,
    confused_pairs,
    confusions,
    group_rows,
    headline_rows,
    metric_rows,
    outcomes_in_words,
)
from diptych.evaluation.task_report import Outcomes, Report
from diptych.evaluation.zero_shot.reliability import reliability
from diptych.reports.charts import Drawing, reliability_chart
from diptych.reports.page_parts import PageImage, Row, Table
from diptych.reports.render import render_page
from diptych.reports.suite_markdown import described
from diptych.wording import metric_interval, metric_value

_CELLS = 16  # most classes of a confusion matrix that is drawn; more have a list of pairs alone
_PAIRS = 12
_CLASSES = 8  # rows of the table of classes that are seen without opening it


@dataclass(frozen=True)
class _Bar:
    """A share as a bar: its length, the ends of its interval, and levels to compare with, all in percent."""

    length: float
    low: float
    high: float
    levels: Sequence[float]


@dataclass(frozen=True)
class _SummaryRow:
    """A headline metric with its figures: value, interval, chance, majority class."""

    row: MetricRow
    figures: Sequence[str]
    bar: _Bar | None


@dataclass(frozen=True)
class _Cell:
    """A cell of a confusion matrix. share: of its row, in percent."""

    kind: str
    share: float
    count: int
    tooltip: str


@dataclass(frozen=True)
class _Section:
    """What the page shows of one task."""

    name: str
    report: Report
    how: str
    metrics: Table
    groups: Table
    calibration: Drawing | None
    matrix: Sequence[tuple[str, Sequence[_Cell]]]
    pairs: Sequence[Confusion]
    pairs_of: int
    classes: Table
    more_classes: Table
    mistakes: Sequence[PageImage]


def page(model: str, results: Sequence[Result], mistakes: Mapping[str, Sequence[PageImage]]) -> str:
    """Return the results of a suite as HTML. mistakes: images of each task, by its name."""
    name = Path(model).name
    done = [result for result in results if result.report is not None]
    return render_page(
        "suite.html",
        title=name,
        place="" if name == model else model,
        results=results,
        done=len(done),
        seconds=sum(result.seconds for result in done),
        summary=[_summary_row(row) for result in results for row in headline_rows(result)],
        sections=[
            _section(result, result.report, mistakes) for result in results if result.report is not None
        ],
    )


def _summary_row(row: MetricRow) -> _SummaryRow:
    figures = (
        metric_value(row.metric, row.value),
        metric_interval(row.metric, row.interval),
        metric_value(row.metric, row.chance),
        metric_value(row.metric, row.majority),
    )
    bar = None
    if 0 <= row.value <= 1:
        low, high = row.interval or (row.value, row.value)
        levels = [100 * level for level in (row.chance, row.majority) if level is not None]
        bar = _Bar(100 * row.value, 100 * low, 100 * high, levels)
    return _SummaryRow(row, figures, bar)


def _section(result: Result, report: Report, mistakes: Mapping[str, Sequence[PageImage]]) -> _Section:
    outcomes = outcomes_in_words(result)
    found = None if outcomes is None else reliability(outcomes)
    # One image says nothing of a class, nor of a pair of them.
    pairs = [] if outcomes is None else [pair for pair in confused_pairs(outcomes) if pair.count > 1]
    classes = [] if outcomes is None else [row for row in class_rows(outcomes) if row.count > 1]
    shown = len(classes) if len(classes) <= 2 * _CLASSES else _CLASSES
    return _Section(
        name=result.name,
        report=report,
        how=described(report),
        metrics=_metrics(result, report),
        groups=_groups(result),
        calibration=None if found is None else reliability_chart(found),
        matrix=[] if outcomes is None else _matrix(outcomes),
        pairs=pairs[:_PAIRS],
        pairs_of=len(pairs),
        classes=_class_table(classes[:shown]),
        more_classes=_class_table(classes[shown:]),
        mistakes=mistakes.get(result.name, ()),
    )


def _metrics(result: Result, report: Report) -> Table:
    rows = [_metric(row.metric.replace("_", " "), row) for row in metric_rows(result)]
    majority = report.scores.chance.get("majority")
    if majority is not None:
        rows.append(Row("always the most frequent class", ("-", "-", metric_value("", majority))))
    return Table(("metric", "value", "95 % interval", "chance"), rows)


def _groups(result: Result) -> Table:
    rows = group_rows(result)
    metric = rows[0].metric.replace("_", " ") if rows else ""
    return Table(
        ("group", "images", metric, "95 % interval", "chance"),
        [_metric(row.task, row, f"{row.count:,}") for row in rows],
    )


def _metric(name: str, row: MetricRow, *before: str) -> Row:
    value, chance = metric_value(row.metric, row.value), metric_value(row.metric, row.chance)
    return Row(name, (*before, value, metric_interval(row.metric, row.interval), chance))


def _matrix(outcomes: Outcomes) -> list[tuple[str, list[_Cell]]]:
    labels, matrix = confusions(outcomes)
    if len(labels) > _CELLS:
        return []
    return [
        (
            label,
            [
                _cell(label, other, int(count), int(counts.sum()))
                for other, count in zip(labels, counts, strict=True)
            ],
        )
        for label, counts in zip(labels, matrix, strict=True)
    ]


def _cell(label: str, predicted: str, count: int, total: int) -> _Cell:
    share = count / max(1, total)
    kind = f"{'hit' if label == predicted else 'miss'}{' deep' if share > 0.5 else ''}"
    return _Cell(kind, 100 * share, count, f"{label} called {predicted}: {count:,} of {total:,}")


def _class_table(classes: Sequence[ClassRow]) -> Table:
    rows = [
        Row(
            row.label,
            (
                f"{row.count:,}",
                metric_value("", row.accuracy),
                metric_interval("", row.interval),
                "-" if row.mistaken_for is None else f"{row.mistaken_for} ({row.times:,})",
            ),
        )
        for row in classes
    ]
    return Table(("class", "images", "accuracy", "95 % interval", "mostly called"), rows)
