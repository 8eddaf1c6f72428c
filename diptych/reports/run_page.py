"""The page that `diptych report` writes of one run, or of several over each other."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diptych.palette import LINES
from diptych.reports.charts import Show
from diptych.reports.page_parts import Row, Table, Tile
from diptych.reports.render import render_page
from diptych.reports.run_charts import LOGGED, evaluated, run_charts, shown
from diptych.runs.recipe_text import section_text
from diptych.runs.run_summary import RunReport
from diptych.wording import count_of, duration, four_digits, percent

if TYPE_CHECKING:
    from diptych.reports.caption_gallery import Gallery

_NEAR_CHANCE = 0.98  # of ln N: a loss above it after the run's first part is that of guessing
_ROWS = 12  # of the table of numbers


_NUMBERS = ("loss", "accuracy", "logit_scale", "gradient_norm", "learning_rate", "samples_per_second")


@dataclass(frozen=True)
class _State:
    """How a run stands, and what to know of it."""

    name: str
    run: RunReport
    batch: int | None
    took: str
    at_chance: bool
    tiles: Sequence[Tile]

    @classmethod
    def of(cls, run: RunReport, name: str) -> "_State":
        batch = run.recipe.get("training", {}).get("batch_size")
        chance, loss = run.chance_loss, run.mean("loss")
        return cls(
            name,
            run,
            batch if isinstance(batch, int) else None,
            _or_dash(_seconds(run), duration),
            chance is not None
            and loss is not None
            and len(run.records) > 10
            and loss > _NEAR_CHANCE * chance,
            list(_tiles(run)),
        )

    @property
    def share(self) -> float | None:
        """The share of its steps that a run which is not done has behind it."""
        if self.run.total is None or self.run.state == "done":
            return None
        return min(1.0, self.run.step / self.run.total)


def page(runs: Sequence[RunReport], gallery: "Gallery | None" = None) -> str:
    """Return the runs as HTML; the first gives the page its title.

    gallery: what a captioner's run writes of held-out images.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs a run")
    names = _names(runs)
    one = runs[0] if len(runs) == 1 else None
    return render_page(
        "run.html",
        title=names[0] if one else f"{len(runs)} runs",
        states=list(map(_State.of, runs, names)),
        overview=_overview(runs, names),
        gallery=gallery,
        charts=list(run_charts(runs, names)),
        evaluations=_evaluations(runs, names),
        recipe=[section_text(*section) for section in one.recipe.items()] if one else [],
        differences=None if one else _differences(runs, names),
        numbers=_numbers(one) if one and one.records else None,
    )


def _names(runs: Sequence[RunReport]) -> list[str]:
    """Return the folders' names, with their parents' where two are equal."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.folder.resolve().parent.name}/{name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _overview(runs: Sequence[RunReport], names: Sequence[str]) -> Table:
    heads = ("run", "state", "step", "loss", "batch accuracy", "pairs/s", "waiting for data", "time")
    rows = [
        Row(
            name,
            (
                run.state,
                f"{run.step:,}",
                _or_dash(run.mean("loss"), four_digits),
                _or_dash(run.mean("accuracy"), percent),
                _or_dash(run.mean("samples_per_second"), four_digits),
                _or_dash(run.data_share, percent),
                _or_dash(_seconds(run), duration),
            ),
            colour=f"c{number % LINES}",
        )
        for number, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    return Table(heads, rows)


def _tiles(run: RunReport) -> Iterator[Tile]:
    loss, chance = run.mean("loss"), run.chance_loss
    if loss is not None:
        yield Tile("Loss", four_digits(loss), "" if chance is None else f"guessing gives {chance:.2f}")
    accuracy = run.mean("accuracy")
    if accuracy is not None:
        right = None if run.approach is None else run.approach.right
        yield Tile("Batch accuracy", percent(accuracy), right or "")
    samples = run.final().get("samples")
    if samples is not None:
        yield Tile("Pairs seen", count_of(int(samples)))
    speed = run.mean("samples_per_second")
    if speed is not None:
        yield Tile("Pairs a second", four_digits(speed))
    share = run.data_share
    if share is not None:
        yield Tile("Waiting for data", percent(share), str(run.verdict))
    if run.state == "done" and (seconds := _seconds(run)) is not None:
        yield Tile("Time", duration(seconds))
    elif run.total is not None:
        yield Tile("Done", percent(run.step / run.total), f"step {run.step:,} of {run.total:,}")


def _evaluations(runs: Sequence[RunReport], names: Sequence[str]) -> Table:
    rows = []
    for key in evaluated(runs):
        show, cells = shown(runs, key), []
        for run in runs:
            curve, best = run.curve(key), run.best
            cell = show(curve[-1][1]) if curve else "-"
            if best is not None and best.metric == key:
                cell += f" (best {show(best.value)}, step {best.step:,})"
            cells.append(cell)
        rows.append(Row(key.replace("_", " "), cells))
    return Table(["metric", *(names if len(runs) > 1 else ["last"])], rows)


def _differences(runs: Sequence[RunReport], names: Sequence[str]) -> Table:
    """Return the settings that are not the same in all recipes."""
    flat = [dict(_flat(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    differ = [key for key in keys if len({settings.get(key, "") for settings in flat}) > 1]
    rows = [Row(key, [settings.get(key, "-") for settings in flat]) for key in differ]
    return Table(["setting", *names], rows)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value)


def _numbers(run: RunReport) -> Table:
    """Return a few logged steps, for whoever cannot read curves."""
    columns = [logged for logged in LOGGED if logged.key in _NUMBERS]
    last = len(run.records) - 1
    chosen = [run.records[place] for place in sorted({round(last * n / (_ROWS - 1)) for n in range(_ROWS)})]
    rows = [
        Row(f"{record['step']:,.0f}", [_or_dash(record.get(column.key), column.show) for column in columns])
        for record in chosen
    ]
    return Table(["step", *(column.key.replace("_", " ") for column in columns)], rows)


def _seconds(run: RunReport) -> float | None:
    return run.final().get("seconds")


def _or_dash(value: float | None, show: Show) -> str:
    return "-" if value is None else show(value)
