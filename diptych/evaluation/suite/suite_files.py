"""The folder of a suite's results: whatever happens while it is written, what stands in it is whole.

    NAME.json          one task: the report, what it was made by, or why it failed
    NAME.DIGEST.npz    what became of each of its examples

The table of outcomes is written first, under a name of its own content, then the JSON that names it; the older
table is deleted last. So a JSON never stands beside the outcomes of another run. The table is a plain NumPy archive
without pickles: `numpy.load(file)["keys"]`.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.atomic import atomic_write, write_text
from diptych.data.left_out import LeftOut
from diptych.errors import DataError
from diptych.evaluation.task_report import Outcomes, Report, Scores

FORMAT_VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a task, and so of its files
_SCORE = "score_"  # before the name of a metric, in the table of outcomes


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one task of a suite came to: a report, or the message of an error.

    made_by: all that the report depends on, as JSON knows it; equal where doing the task again would change nothing.
    phrases: how people call the classes that the data call otherwise, by the data's names.
    """

    name: str
    made_by: Mapping[str, Any]
    report: Report | None = None
    error: str | None = None
    seconds: float = 0.0
    phrases: Mapping[str, str] = field(default_factory=dict)


def write_result(folder: Path, result: Result) -> None:
    """Put a task's result into the folder of a suite, in place of an older one."""
    values: dict[str, Any] = {"format_version": FORMAT_VERSION, "name": result.name}
    keep = None
    if result.report is not None:
        values |= {"status": "done", **_without_nan(result.report.to_json()), "seconds": result.seconds}
        values["phrases"] = dict(result.phrases)
        if result.report.outcomes is not None:
            content = _pack(result.report.outcomes)
            digest = hashlib.sha256(content).hexdigest()
            keep = folder / f"{result.name}.{digest[:16]}.npz"
            with atomic_write(keep) as file:
                file.write(content)
            values["outcomes"] = {"file": keep.name, "sha256": digest}
    else:
        values |= {"status": "failed", "error": result.error}
    values["made_by"] = dict(result.made_by)
    write_text(folder / f"{result.name}.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    for older in folder.glob(f"{result.name}.*.npz"):
        if older != keep:
            older.unlink()


def read_result(file: Path) -> Result:
    """Read the result that a JSON file of a suite holds.

    Raises:
        DataError: it is no such file, or its outcomes are missing or not as they were written.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file}: written by another version of Diptych; evaluate again into a new folder"
            )
        report = None
        if values["status"] == "done":
            place = values.get("outcomes")
            report = _report(values, None if place is None else _read_outcomes(file.parent, place))
        return Result(
            name=values["name"],
            made_by=values["made_by"],
            report=report,
            error=values.get("error"),
            seconds=values.get("seconds", 0.0),
            phrases=values.get("phrases", {}),
        )
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; expected a result of diptych evaluate all") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: not a result of diptych evaluate all ({type(error).__name__}: {error}); delete it, or name "
            "another"
        ) from None


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replace metrics that are not defined by null, since JSON has no word for them."""

    def of(scores: dict[str, Any]) -> dict[str, Any]:
        metrics = scores["metrics"]
        return scores | {
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        }

    return of(values) | {"groups": {name: of(scores) for name, scores in values["groups"].items()}}


def _report(values: Mapping[str, Any], outcomes: Outcomes | None) -> Report:
    unused, skipped = _left_out(values)
    return Report(
        task=values["task"],
        model=values["model"],
        data=values["data"],
        scores=_scores(values),
        groups={name: _scores(part) for name, part in values["groups"].items()},
        skipped=skipped,
        unused=unused,
        remarks=tuple(values.get("remarks", ())),  # of version 0.1: none
        details=values["details"],
        outcomes=outcomes,
    )


def _left_out(values: Mapping[str, Any]) -> tuple[LeftOut, LeftOut]:
    """Return what the sources left out, and the skipped rows; the file has their sum, the names of `unused` first."""
    skipped = values["skipped"]
    unnamed = {reason: {"count": count, "first": ()} for reason, count in skipped.items()}
    parts: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for reason, told in values.get("left_out", unnamed).items():  # version 0.1 wrote no names
        mine = skipped.get(reason, 0)
        unused = told["count"] - mine
        if unused:
            parts[0][reason] = {"count": unused, "first": told["first"][:unused]}
        if mine:
            parts[1][reason] = {"count": mine, "first": told["first"][unused:]}
    return LeftOut.from_json(parts[0]), LeftOut.from_json(parts[1])


def _scores(values: Mapping[str, Any]) -> Scores:
    return Scores(
        count=values["count"],
        metrics={name: math.nan if value is None else value for name, value in values["metrics"].items()},
        confidence={name: (low, high) for name, (low, high) in values["confidence"].items()},
        chance=values["chance"],
    )


def _pack(outcomes: Outcomes) -> bytes:
    columns = {
        "keys": np.array(outcomes.keys, np.str_),
        "labels": np.array(outcomes.labels, np.str_),
        "positions": np.array(outcomes.positions, np.int64),
        "target": outcomes.target,
        "predicted": outcomes.predicted,
        "probability": outcomes.probability,
    } | {f"{_SCORE}{name}": values for name, values in outcomes.scores.items()}
    file = io.BytesIO()
    np.savez_compressed(
        file,
        allow_pickle=False,
        **{name: column for name, column in columns.items() if column is not None},
    )
    return file.getvalue()


def _read_outcomes(folder: Path, place: Mapping[str, Any]) -> Outcomes:
    file = folder / str(place["file"])
    if file.parent != folder or not file.is_file():
        raise DataError(f"{file}: the outcomes of a task are missing; run diptych evaluate all again")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != place["sha256"]:
        raise DataError(f"{file}: not as it was written; run diptych evaluate all again")
    with np.load(io.BytesIO(content), allow_pickle=False) as table:
        columns = {name: table[name] for name in table.files}
    return Outcomes(
        keys=tuple(columns["keys"].tolist()),
        scores={
            name.removeprefix(_SCORE): column for name, column in columns.items() if name.startswith(_SCORE)
        },
        labels=tuple(columns["labels"].tolist()),
        target=columns.get("target"),
        predicted=columns.get("predicted"),
        probability=columns.get("probability"),
        positions=tuple(columns["positions"].tolist()),
    )
