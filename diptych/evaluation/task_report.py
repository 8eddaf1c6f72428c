"""What an evaluation found: one shape for programs, one table for people."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from diptych.data.left_out import LeftOut, all_left_out
from diptych.evaluation.metrics import CONFIDENCE_LEVEL, Floats, Integers, Interval


@dataclass(frozen=True)
class Scores:
    """Metrics of some rows. Shares are fractions in 0..1, ranks count from 1."""

    count: int
    metrics: Mapping[str, float]
    confidence: Mapping[str, Interval]  # of the metrics that have one
    chance: Mapping[str, float]  # what guessing would give, for the metrics that can be guessed

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "metrics": dict(self.metrics),
            "confidence": {name: list(interval) for name, interval in self.confidence.items()},
            "chance": dict(self.chance),
        }


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What became of each of n examples: for paired comparisons, confusions and calibration.

    keys: (n,), equal for equal examples whatever the model. scores: for each metric that is a mean over examples,
    the (n,) values that it is the mean of. labels: the classes, empty where a task has none; target, predicted:
    (n,) their columns; probability: (n,) of the predicted class. positions: (n,) rows of the source, to find the
    images again.
    """

    keys: tuple[str, ...]
    scores: Mapping[str, Floats]
    labels: tuple[str, ...] = ()
    target: Integers | None = None
    predicted: Integers | None = None
    probability: Floats | None = None
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """One task, one model, one dataset."""

    task: str
    model: str
    data: str
    scores: Scores
    groups: Mapping[str, Scores] = field(default_factory=dict)  # the same metrics for parts of the data
    skipped: Mapping[str, int] = field(default_factory=dict)  # images that could not be read, by reason
    remarks: tuple[str, ...] = ()  # what a reader of the figures should know about the data
    unused: LeftOut = field(default_factory=LeftOut)  # what the data's sources left out when they were opened
    details: Mapping[str, Any] = field(
        default_factory=dict
    )  # how it was measured: what a task chose by itself
    notes: tuple[
        str, ...
    ] = ()  # how it was measured, in sentences; not part of the JSON, which has `details`
    outcomes: Outcomes | None = None  # not part of the JSON, which stays small

    @property
    def left_out(self) -> LeftOut:
        """Return everything that was not measured, by reason, with the first names."""
        return all_left_out([self.unused, self.skipped])

    def to_json(self) -> dict[str, Any]:
        """Return `{"task", "model", "count", "metrics", "confidence", ...}`, as every report prints it."""
        return {
            "task": self.task,
            "model": self.model,
            "data": self.data,
            **self.scores.to_json(),
            "confidence_level": CONFIDENCE_LEVEL,
            "groups": {name: scores.to_json() for name, scores in self.groups.items()},
            "skipped": dict(self.skipped),
            "remarks": list(self.remarks),
            "left_out": self.left_out.to_json(),
            "details": dict(self.details),
        }

    def table(self) -> Table:
        """Return the report as a table for a terminal: a row a metric, groups below one another."""
        table = Table(title=f"{self.task}: {self.model} on {self.data}", title_justify="left")
        for name in ("group", "count") if self.groups else ("count",):
            table.add_column(name, justify="left" if name == "group" else "right")
        for name in ("metric", "value", f"{CONFIDENCE_LEVEL:.0%} interval", "chance"):
            table.add_column(name, justify="left" if name == "metric" else "right")
        parts = {"all": self.scores, **self.groups} if self.groups else {"": self.scores}
        for group, scores in parts.items():
            first = [group, str(scores.count)] if self.groups else [str(scores.count)]
            for cells in _rows(scores):
                table.add_row(*first, *cells)
                first = [""] * len(first)
            table.add_section()
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        below = [f"skipped: {reasons}"] if reasons else []
        table.caption = "\n".join([*below, *map(escape, self.remarks)]) or None
        return table


def _rows(scores: Scores) -> Iterator[tuple[str, str, str, str]]:
    for name, value in scores.metrics.items():
        interval = scores.confidence.get(name)
        chance = scores.chance.get(name)
        yield (
            name.replace("_", " "),
            _shown(name, value),
            f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else "",
            "" if chance is None else _shown(name, chance),
        )
    for name, value in scores.chance.items():
        if name not in scores.metrics:
            yield name.replace("_", " "), "", "", _shown(name, value)


def _shown(name: str, value: float) -> str:
    return f"{value:,.1f}" if name.endswith("rank") else f"{value:.2%}"
