"""Tables of accuracies, and what they say about each model's robustness under each shift.

A table has one row for each model and shift. It is read from CSV or JSON, or put together from the reports of
`diptych evaluate`; docs/robustness.md describes the columns.
"""

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import DataError
from diptych.evaluation.metrics import Interval, wilson
from diptych.evaluation.robustness.effective import (
    Baseline,
    Line,
    PivotedLine,
    Standing,
    bootstrap,
    effective_robustness,
    fit_line,
    fit_pivoted_line,
    relative_interval,
    relative_robustness,
)

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_NEEDED = ("model", "standard", "shift", "id_accuracy", "shift_accuracy", "id_count", "shift_count")
_MOST_MARKED = 3  # stars in one plot
_OPTIONAL = ("group", "changed_from")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One model on one pair of test sets."""

    model: str
    standard: bool  # whether the line is fitted to it
    shift: str  # name of the shifted set
    id_accuracy: float  # fractions
    shift_accuracy: float
    id_count: int  # test images
    shift_count: int
    group: str = ""  # what the plot calls its kind; by `standard` when empty
    changed_from: str | None = None  # the model that an intervention started from


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model of the comparison. Accuracies are fractions strictly between 0 and 1."""

    name: str
    group: str  # what the legend calls its kind
    id_accuracy: float
    shift_accuracy: float
    id_interval: Interval | None = None
    shift_interval: Interval | None = None
    named: bool = False  # its name stands beside it
    marked: bool = False  # drawn as a star, with its height above the line


@dataclass(frozen=True)
class Relative:
    """What a change of a model gained under the shift."""

    changed_from: str
    gain: float  # tau
    interval: Interval


@dataclass(frozen=True)
class Placed:
    """A measurement, and where it stands against the line."""

    measurement: Measurement
    expected: float  # what the line predicts under the shift
    effective: float  # rho
    standing: Standing | None  # None for the standard models: they made the line
    relative: Relative | None  # of models that name the one that they started from


@dataclass(frozen=True)
class ShiftSummary:
    """One shift: the line of its standard models, and every model in the order of the table."""

    shift: str
    line: Baseline
    models: Sequence[Placed]

    @property
    def lines(self) -> tuple[Line, ...]:
        """Return the line, or the two of a pivoted one, the lower first."""
        return (self.line.lower, self.line.upper) if isinstance(self.line, PivotedLine) else (self.line,)

    def points(self) -> list[Point]:
        """Return all models for `plot_robustness`: those that are not standard are named, few show their heights."""
        others = sum(not placed.measurement.standard for placed in self.models)
        return [_point(placed.measurement, marked=others <= _MOST_MARKED) for placed in self.models]


def read_table(path: str | Path) -> list[Measurement]:
    """Read the rows of a .csv file, or of a .json file that holds a list of objects.

    Raises:
        DataError: no such file, another ending, a column that is missing or unknown, or a value that cannot be used.
    """
    file = Path(path)
    if file.suffix.lower() not in (".csv", ".json"):
        raise DataError(f"{file}: expected a table of accuracies as .csv or .json")
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; expected a table of accuracies") from None
    if file.suffix.lower() == ".csv":
        rows: Iterable[tuple[str, Any]] = (
            (f"{file}, row {number}", row) for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2)
        )
    else:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{file}: not valid JSON: {error}") from None
        if not isinstance(content, list):
            raise DataError(f"{file}: expected a list of objects, one for each model and shift")
        rows = ((f"{file}, entry {number}", row) for number, row in enumerate(content, 1))
    return [_measurement(place, row) for place, row in rows]


def from_reports(
    reports: Mapping[str, Any], *, id_data: str, standard: Collection[str], metric: str = "top1"
) -> list[Measurement]:
    """Read rows from reports of `diptych evaluate ... --json`, by the names of their files.

    id_data: the `data` of the reports without the shift; every other `data` is a shift. standard: the models that
    the line is fitted to.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}  # data -> model -> accuracy, images
    for name, report in reports.items():
        try:
            data, model = report["data"], report["model"]
            value = float(report["metrics"][metric]), int(report["count"])
        except (TypeError, KeyError, ValueError):
            raise DataError(
                f"{name}: no report of one model on one dataset with the metric {metric!r}; expected what "
                "`diptych evaluate zero-shot --json` prints"
            ) from None
        if model in found.setdefault(data, {}):
            raise DataError(f"{name}: a second report of {model} on {data}; give one of them")
        found[data][model] = value
    if id_data not in found:
        raise DataError(
            f"no report on {id_data!r}; the reports are on {', '.join(sorted(found)) or 'nothing'}"
        )
    before = found.pop(id_data)
    unknown = sorted(set(standard) - set(before))
    if unknown:
        raise DataError(
            f"no report of the standard model {unknown[0]!r} on {id_data}; there are {', '.join(before)}"
        )
    for shift, models in found.items():
        for model in models:
            if model not in before:
                raise DataError(f"{model} has a report on {shift} and none on {id_data}; expected both")
    return [
        Measurement(
            model=model,
            standard=model in standard,
            shift=shift,
            id_accuracy=before[model][0],
            shift_accuracy=accuracy,
            id_count=before[model][1],
            shift_count=count,
        )
        for shift, models in found.items()
        for model, (accuracy, count) in models.items()
    ]


def summarise(
    table: Sequence[Measurement], pivots: Mapping[str, float] | None = None, *, seed: int = 0
) -> list[ShiftSummary]:
    """Return each shift's line, and where every model stands against it, in the order of the table.

    pivots: for a shift whose line is broken in two, the accuracy without the shift where it breaks (ImageNet-A).

    Raises:
        DataError: an empty table, a model twice, an unknown `changed_from` or pivot, or a line that cannot be fitted.
    """
    if not table:
        raise DataError("an empty table; expected a row for each model and shift")
    shifts = {row.shift: [other for other in table if other.shift == row.shift] for row in table}
    for shift in pivots or {}:
        if shift not in shifts:
            raise DataError(f"pivot of {shift!r}: no such shift; there are {', '.join(shifts)}")
    return [_summary(shift, rows, (pivots or {}).get(shift), seed) for shift, rows in shifts.items()]


def _summary(shift: str, rows: Sequence[Measurement], pivot: float | None, seed: int) -> ShiftSummary:
    by_name: dict[str, Measurement] = {}
    for row in rows:
        if row.model in by_name:
            raise DataError(f"{shift}: two rows of {row.model}; expected one")
        by_name[row.model] = row
    standard = [row for row in rows if row.standard]
    if not standard:
        raise DataError(f"{shift}: no standard model; the line is fitted to those, so mark at least three")
    before, after = [row.id_accuracy for row in standard], [row.shift_accuracy for row in standard]
    counts = max(row.id_count for row in standard), max(row.shift_count for row in standard)
    try:
        line = (
            fit_line(before, after, counts)
            if pivot is None
            else fit_pivoted_line(before, after, pivot, counts)
        )
    except DataError as error:
        raise DataError(f"{shift}: {error}") from None
    return ShiftSummary(shift, line, [_placed(row, by_name, line, seed) for row in rows])


def _placed(row: Measurement, others: Mapping[str, Measurement], line: Baseline, seed: int) -> Placed:
    counts = row.id_count, row.shift_count
    relative = None
    if row.changed_from is not None:
        if row.changed_from not in others:
            raise DataError(
                f"{row.shift}: {row.model} is changed from {row.changed_from!r}, which has no row"
            )
        origin = others[row.changed_from].shift_accuracy
        relative = Relative(
            row.changed_from,
            relative_robustness(row.shift_accuracy, origin),
            relative_interval(row.shift_accuracy, origin, row.shift_count, seed=seed),
        )
    return Placed(
        measurement=row,
        expected=float(line.predict(row.id_accuracy)),
        effective=effective_robustness(line, row.id_accuracy, row.shift_accuracy),
        standing=None
        if row.standard
        else bootstrap(line, row.id_accuracy, row.shift_accuracy, counts, seed=seed),
        relative=relative,
    )


def _point(row: Measurement, *, marked: bool) -> Point:
    def inside(accuracy: float, count: int) -> float:
        # As `robustness.logit` moves 0 and 1.
        return (accuracy * count + 0.5) / (count + 1) if accuracy in (0.0, 1.0) else accuracy

    return Point(
        name=row.model,
        group=row.group or ("standard models" if row.standard else "other models"),
        id_accuracy=inside(row.id_accuracy, row.id_count),
        shift_accuracy=inside(row.shift_accuracy, row.shift_count),
        id_interval=wilson(row.id_accuracy, row.id_count),
        shift_interval=wilson(row.shift_accuracy, row.shift_count),
        named=not row.standard,
        marked=marked and not row.standard,
    )


def _measurement(place: str, row: Any) -> Measurement:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object with {', '.join(_NEEDED)}")
    unknown = [str(name) for name in row if name not in (*_NEEDED, *_OPTIONAL)]
    if unknown:
        raise DataError(
            f"{place}: unknown column {unknown[0]!r}; known are {', '.join((*_NEEDED, *_OPTIONAL))}"
        )
    missing = [name for name in _NEEDED if row.get(name) in (None, "")]
    if missing:
        raise DataError(f"{place}: no {missing[0]}; every row needs {', '.join(_NEEDED)}")
    return Measurement(
        model=str(row["model"]),
        standard=_truth(place, row["standard"]),
        shift=str(row["shift"]),
        id_accuracy=_fraction(place, row, "id_accuracy"),
        shift_accuracy=_fraction(place, row, "shift_accuracy"),
        id_count=_images(place, row, "id_count"),
        shift_count=_images(place, row, "shift_count"),
        group=str(row.get("group") or ""),
        changed_from=str(row["changed_from"]) if row.get("changed_from") else None,
    )


def _truth(place: str, value: object) -> bool:
    word = str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise DataError(f"{place}: standard is {value!r}; expected yes or no")
    return word in _TRUE


def _fraction(place: str, row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{place}: {name} is {row[name]!r}; expected a fraction in 0..1 (0.763, not 76.3)")
    return value


def _images(place: str, row: Mapping[str, Any], name: str) -> int:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not (value >= 1 and value.is_integer()):
        raise DataError(f"{place}: {name} is {row[name]!r}; expected a number of test images")
    return int(value)
