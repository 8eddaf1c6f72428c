"""`diptych evaluate robustness`: from accuracies to effective and relative robustness, with a plot."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, say
from diptych.errors import DataError, UsageError
from diptych.wording import percent

if TYPE_CHECKING:
    from rich.table import Table

    from diptych.evaluation.metrics import Interval
    from diptych.evaluation.robustness.robustness_table import Measurement, Placed, ShiftSummary


def robustness(
    table: Annotated[
        Path,
        Parameter(help="A CSV or JSON table of accuracies, or reports of diptych evaluate --json."),
    ],
    /,
    *others: Annotated[Path, Parameter(help="Further tables or reports.")],
    id_data: Annotated[
        str | None, Parameter(help="With reports: the data without the shift; all other data is shifted.")
    ] = None,
    standard: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="With reports: a model that the line is fitted to; at least three."),
    ] = (),
    metric: Annotated[str, Parameter(help="With reports: the accuracy that is compared.")] = "top1",
    pivot: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", help="SHIFT=ACCURACY: fit below and above it on their own, as ImageNet-A needs."
        ),
    ] = (),
    plot: Annotated[
        Path | None, Parameter(help="Draw .svg or .png; with several shifts one file each, named after them.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of the intervals' draws.")] = 0,
    as_json: Json = False,
) -> None:
    """How much a model keeps under a distribution shift, beyond what its accuracy without it predicts.

    A line is fitted to the standard models, on logit axes. Effective robustness is the height above it; relative
    robustness is what a change of a model gained under the shift.
    """
    from diptych.evaluation.robustness.robustness_table import summarise

    measurements = _read((table, *others), id_data, standard, metric)
    summaries = summarise(measurements, dict(map(_pivot, pivot)), seed=seed)
    files = _draw(summaries, plot) if plot is not None else [None] * len(summaries)
    if as_json:
        emit({"shifts": [_json(summary, file) for summary, file in zip(summaries, files, strict=True)]})
        return
    from rich.console import Console

    console = Console(highlight=False)
    for summary, file in zip(summaries, files, strict=True):
        console.print(_table(summary))
        for gain in _gains(summary):
            print(gain)
        if file is not None:
            print(file)


def _read(
    files: Sequence[Path], id_data: str | None, standard: Sequence[str], metric: str
) -> list["Measurement"]:
    """Tables, or reports, but not both."""
    from diptych.evaluation.robustness.robustness_table import from_reports, read_table

    if id_data is None:
        if standard:
            raise UsageError(
                "--standard goes with --id-data and reports; a table says itself which are standard"
            )
        return [row for file in files for row in read_table(file)]
    if not standard:
        raise UsageError(
            "--id-data: name the standard models too, with --standard NAME, at least three times"
        )
    reports: dict[str, Any] = {}
    for file in files:
        try:
            reports[str(file)] = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}; expected a report as JSON") from None
        except ValueError as error:
            raise DataError(f"{file}: not valid JSON: {error}") from None
    return from_reports(reports, id_data=id_data, standard=standard, metric=metric)


def _pivot(text: str) -> tuple[str, float]:
    shift, _, value = text.rpartition("=")
    try:
        accuracy = float(value)
    except ValueError:
        accuracy = -1.0
    if not shift or not 0 < accuracy < 1:
        raise UsageError(f"--pivot {text!r}: expected SHIFT=ACCURACY, such as imagenet-a=0.9186")
    return shift, accuracy


def _draw(summaries: Sequence["ShiftSummary"], plot: Path) -> list[Path | None]:
    from diptych.reports.plots.robustness_plot import plot_robustness

    files: list[Path | None] = []
    plot.parent.mkdir(parents=True, exist_ok=True)
    for summary in summaries:
        name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in summary.shift)
        file = plot if len(summaries) == 1 else plot.with_name(f"{plot.stem}-{name}{plot.suffix}")
        plot_robustness(
            summary.points(),
            summary.line,
            file,
            title=f"Effective robustness: {summary.shift}",
            shift_name=f"accuracy on {summary.shift}",
        )
        say(f"drew {file}")
        files.append(file)
    return files


def _table(summary: "ShiftSummary") -> "Table":
    """The models above the line first; the standard ones, which made it, last."""
    from rich.table import Table

    fits = "; ".join(
        f"slope {line.slope:.2f} ({line.slope_interval[0]:.2f} to {line.slope_interval[1]:.2f}), "
        f"r {line.correlation:.2f}, {line.models} standard models"
        for line in summary.lines
    )
    table = Table(title=f"{summary.shift}: {fits}", title_justify="left")
    table.add_column("model", overflow="fold")
    for name in ("without", "under", "expected", "effective, 95 %", "gap\nclosed"):
        table.add_column(name, justify="right", no_wrap=True)
    ranked = sorted(summary.models, key=lambda placed: (placed.measurement.standard, -placed.effective))
    for place, placed in enumerate(ranked):
        row, standing = placed.measurement, placed.standing
        interval = f" ({_between(standing.effective_interval)})" if standing else ""
        table.add_row(
            row.model,
            percent(row.id_accuracy),
            percent(row.shift_accuracy),
            percent(placed.expected),
            f"{_points(placed.effective)}{interval}",
            _share(standing.gap_closed) if standing else "",
            end_section=place + 1 < len(ranked) and row.standard != ranked[place + 1].measurement.standard,
        )
    return table


def _gains(summary: "ShiftSummary") -> list[str]:
    """A line for each model that is a change of another."""
    return [
        f"relative robustness of {placed.measurement.model} over {gain.changed_from}: "
        f"{_points(gain.gain)} ({_between(gain.interval)})"
        for placed in summary.models
        if (gain := placed.relative) is not None
    ]


def _points(fraction: float) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * fraction:+.1f}"


def _between(interval: "Interval") -> str:
    return f"{_points(interval[0])} to {_points(interval[1])}"


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"  # nan: the line expects no gap


def _json(summary: "ShiftSummary", file: Path | None) -> dict[str, object]:
    return {
        "shift": summary.shift,
        "plot": None if file is None else str(file),
        "lines": [
            {
                "slope": line.slope,
                "slope_interval": list(line.slope_interval),
                "intercept": line.intercept,
                "correlation": line.correlation,
                "scatter": line.scatter,
                "models": line.models,
            }
            for line in summary.lines
        ],
        "models": [_entry(placed) for placed in summary.models],
    }


def _entry(placed: "Placed") -> dict[str, object]:
    row, standing, relative = placed.measurement, placed.standing, placed.relative
    return {
        "model": row.model,
        "standard": row.standard,
        "id_accuracy": row.id_accuracy,
        "shift_accuracy": row.shift_accuracy,
        "expected": placed.expected,
        "effective_robustness": placed.effective,
        "effective_interval": list(standing.effective_interval) if standing else None,
        "gap_closed": standing.gap_closed if standing else None,
        "gap_closed_interval": list(standing.gap_closed_interval) if standing else None,
        "deviations": standing.deviations if standing else None,
        "changed_from": row.changed_from,
        "relative_robustness": relative.gain if relative else None,
        "relative_interval": list(relative.interval) if relative else None,
    }
