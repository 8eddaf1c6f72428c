"""The page that `diptych finetune` writes: what was gained, what was lost, and what lies between."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.atomic import write_text
from diptych.config import plain
from diptych.errors import DataError
from diptych.evaluation.comparison import Change
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.zero_shot.reliability import reliability
from diptych.reports.charts import Drawing, Series, against, reliability_chart
from diptych.reports.page_parts import PageImage, Row, Table, Tile
from diptych.reports.render import render_page
from diptych.reports.thumbnail import thumbnail
from diptych.runs.evaluations import held_out_part
from diptych.runs.finetune_figures import (
    HELD_OUT_TASK,
    OWN,
    FinetuneResult,
    TaskChange,
    changed_examples,
    gain_between,
    headline,
    task_changes,
)
from diptych.runs.recipe_text import section_text
from diptych.wording import metric_interval, percent, points

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source

PAGE = "finetune.html"  # in the folder of the run
_SHOWN = 12  # images of either kind of change
_SIDE = 96  # pixels
_HEADS = ("task", "before", "95 %", "start", "after", "95 %", "points", "95 %, paired", "gained / lost")


@dataclass(frozen=True)
class _ChangedGroup:
    """The held-out images that were gained, or lost; the first of `count`."""

    title: str
    count: int
    images: Sequence[PageImage]


def write_finetune_page(found: FinetuneResult, folder: str | os.PathLike[str]) -> Path:
    """Write what a run of fine-tuning gained and lost as one HTML file, `folder`/finetune.html.

    `diptych finetune` writes this page after each run.

    Args:
        found: what `finetune` returned.
        folder: where to write, such as the folder of the run.

    Returns:
        The file.

    Raises:
        DataError: the data of the run cannot be opened any more, from which the changed images are shown.

    Example:
        >>> import diptych
        >>> tuned = diptych.finetune("classes", "runs/page", keep=(), assignments=["training.steps=2"], device="cpu")
        >>> diptych.write_finetune_page(tuned, "runs/page")
        PosixPath('runs/page/finetune.html')
    """
    file = Path(folder) / PAGE
    held_out = held_out_part(found.recipe) if HELD_OUT_TASK in found.before else None
    write_text(file, page(Path(folder), found, held_out))
    return file


def page(folder: Path, found: FinetuneResult, held_out: "Source | None") -> str:
    """Return a run of fine-tuning as HTML. held_out: the images that were kept from training, if any."""
    recipe = found.recipe
    changes = task_changes(found)
    examples = None if held_out is None else changed_examples(found)
    split = [] if found.held_out is None else found.held_out.describe().splitlines()
    return render_page(
        "finetune.html",
        title=folder.resolve().name,
        found=found,
        start=recipe.model.init,
        tiles=[Tile("Alpha", f"{found.alpha:g}", "share of the fine-tuned weights"), *map(_tile, changes)],
        tasks=Table(_HEADS, list(map(_row, changes)), strong=3),
        split=[(line.startswith("warning"), f"{line[:1].upper()}{line[1:]}.") for line in split],
        curves=list(_curves(found)),
        calibration=list(_calibration(found)),
        changed=[] if examples is None or held_out is None else list(_changed(examples, held_out)),
        compared=examples is not None,
        both_directions=examples is not None and len(headlines(found.after[HELD_OUT_TASK])) > 1,
        recipe=[section_text(*section) for section in plain(recipe).items()],
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _tile(change: TaskChange) -> Tile:
    return Tile(
        _words(change.task),
        percent(change.after),
        f"{_words(change.metric)}, {percent(change.before)} as loaded",
    )


def _row(change: TaskChange) -> Row:
    paired = change.paired
    cells = (
        percent(change.before),
        metric_interval("", change.before_interval),
        percent(change.start),
        percent(change.after),
        metric_interval("", change.after_interval),
        points(change.after - change.before),
        "-" if paired is None else f"{points(paired.interval[0])} to {points(paired.interval[1])}",
        "-" if paired is None else f"{paired.gained:,} / {paired.lost:,}",
    )
    return Row(change.task, cells, note=f"{_words(change.metric)}, {change.count:,} images of {change.data}")


def _curves(found: FinetuneResult) -> Iterator[Drawing]:
    """Yield every task over alpha, and the others against the one that was learned."""
    if len(found.curve) < 2 or not found.before:
        return
    values = {
        task: [(alpha, headline(reports[task])[1]) for alpha, reports in found.curve] for task in found.before
    }
    yield against(
        "From the start to the fine-tuned model",
        "Across: alpha, the share of the fine-tuned weights. Up: the headline metric of each task.",
        [
            Series(
                _words(task), number, curve, [f"alpha {alpha:g}: {percent(value)}" for alpha, value in curve]
            )
            for number, (task, curve) in enumerate(values.items())
        ],
        "{:g}".format,
    )
    learned = next((task for task in values if task.startswith(OWN)), None)
    others = [task for task in values if task != learned]
    if learned is None or not others:
        return
    yield against(
        "What was learned against what was kept",
        f"Across: {_words(learned)}. Up: each other task.{_sum_words(found)}",
        [
            Series(
                _words(other),
                number,
                [(gained[1], kept[1]) for gained, kept in zip(values[learned], values[other], strict=True)],
                [
                    f"alpha {alpha:g}: {percent(gained)}, {percent(kept)}"
                    for (alpha, gained), (_, kept) in zip(values[learned], values[other], strict=True)
                ],
            )
            for number, other in enumerate(others, 1)
        ],
        lambda tick: f"{100 * tick:.6g} %",
    )


def _sum_words(found: FinetuneResult) -> str:
    between = gain_between(found)
    if between is None:
        return ""
    alpha, gain = between
    verb = "beats both ends" if gain > 0 else "does not beat the better end"
    return f" On the sum of all tasks, alpha {alpha:g} {verb} ({points(gain)} points)."


def _calibration(found: FinetuneResult) -> Iterator[Drawing]:
    for said, reports in (("before", found.before), ("after", found.after)):
        report = reports.get(HELD_OUT_TASK)
        curve = None if report is None or report.outcomes is None else reliability(report.outcomes)
        if curve is not None:
            yield reliability_chart(curve, f"Reliability {said}")


def _changed(examples: Sequence[tuple[Change, int]], source: "Source") -> Iterator[_ChangedGroup]:
    for gained, title in ((True, "Wrong before, right now"), (False, "Right before, wrong now")):
        chosen = [example for example in examples if example[0].gained == gained]
        if chosen:
            images = [_image(change, source, position) for change, position in chosen[:_SHOWN]]
            yield _ChangedGroup(title, len(chosen), [image for image in images if image is not None])


def _image(change: Change, source: "Source", position: int) -> PageImage | None:
    """Return a changed example; None if its image cannot be read any more."""
    try:
        data = thumbnail(source[position].image, _SIDE)
    except DataError:
        return None
    note = f"{change.first} before, {change.second} now" if change.target is not None else ""
    return PageImage(data, change.target or change.key, note, change.key)
