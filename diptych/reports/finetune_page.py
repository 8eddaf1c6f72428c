"""The page that `diptych finetune` writes: what was gained, what was lost, and what lies between."""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from PIL import Image

import diptych
from diptych.config import plain
from diptych.data.images.decoding import read_rgb
from diptych.errors import DataError
from diptych.evaluation.comparison import Change, compare
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.suite.suite_report import reliability
from diptych.reports.charts import HEIGHT, WIDTH, nice_ticks
from diptych.reports.run_style import STYLE
from diptych.reports.suite_page import PAGE_STYLE, reliability_chart
from diptych.runs.finetune_figures import OWN, Finetuned, Reports, headline, paired_difference
from diptych.runs.recipe_text import section_text
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source
    from diptych.evaluation.metrics import Interval
    from diptych.evaluation.task_report import Report
    from diptych.training.settings import Recipe

_SHOWN = 12  # pictures of either kind of change
_SIDE = 96  # pixels

Point = tuple[float, float, str]  # across and up, in 0..1, and what a pointer is told


def page(folder: Path, recipe: "Recipe", found: Finetuned, held_out: "Source | None") -> str:
    """The run as HTML. held_out: the pictures that were kept from training, where there are any."""
    return _PAGE.substitute(
        style=STYLE + PAGE_STYLE,
        title=escape(folder.resolve().name),
        lead=f"<strong>{escape(found.method)}</strong> from {escape(recipe.model.init)}, alpha {found.alpha:g}, "
        + (f"weights of step {found.step:,}." if found.step else "the start: no step was better."),
        tiles=_tiles(found),
        alarms="".join(f'<p class="notice">{escape(str(loss))}</p>' for loss in found.losses),
        tasks=_tasks(found),
        split=_split(found),
        curve=_curve(found),
        calibration=_calibration(found),
        changes=_changes(found, held_out),
        recipe="".join(
            f"<pre>{escape(section_text(section, values))}</pre>" for section, values in plain(recipe).items()
        ),
        version=diptych.__version__,
    ).replace(" %", "&nbsp;%")


def _tiles(found: Finetuned) -> str:
    tiles = [("Alpha", f"{found.alpha:g}", "share of the fine-tuned weights")]
    for task, before in found.before.items():
        metric, old = headline(before)
        new = headline(found.after[task])[1]
        tiles.append((_words(task), percent(new), f"{_words(metric)}, {percent(old)} as loaded"))
    return "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>" for name, value, note in tiles
    )


def _tasks(found: Finetuned) -> str:
    if not found.before:
        return "<p>Nothing was measured: the recipe has no evaluations.</p>"
    rows = []
    for task, before in found.before.items():
        after = found.after[task]
        metric, old = headline(before)
        start, new = headline(found.start[task])[1], headline(after)[1]
        paired = paired_difference(task, before, after)
        moved = (
            "-" if paired is None else f"{100 * paired.interval[0]:+.1f} to {100 * paired.interval[1]:+.1f}"
        )
        counts = "-" if paired is None else f"{paired.gained:,} / {paired.lost:,}"
        rows.append(
            f'<tr><th scope="row">{_words(task)}<small>{_words(metric)}, {before.scores.count:,} images of '
            f"{escape(before.data)}</small></th><td>{percent(old)}</td>{_range(before, metric)}"
            f"<td>{percent(start)}</td><td><b>{percent(new)}</b></td>{_range(after, metric)}"
            f"<td>{100 * (new - old):+.1f}</td><td>{moved}</td><td>{counts}</td></tr>"
        )
    heads = ("task", "before", "95 %", "start", "after", "95 %", "points", "95 %, paired", "gained / lost")
    titles = "".join(f'<th scope="col">{head}</th>' for head in heads)
    head, body = f"<thead><tr>{titles}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return f'<div class="panel scroll"><table>{head}{body}</table></div>'


def _split(found: Finetuned) -> str:
    """How the held-out part was made, and what to know of it."""
    if found.held_out is None:
        return ""
    lines = found.held_out.describe().splitlines()
    return "".join(
        f'<p class="{"notice" if line.startswith("warning") else "hint"}">{escape(line[:1].upper() + line[1:])}.</p>'
        for line in lines
    )


def _range(report: "Report", metric: str) -> str:
    interval: Interval | None = report.scores.confidence.get(metric)
    return "<td>-</td>" if interval is None else f"<td>{percent(interval[0])} to {percent(interval[1])}</td>"


def _curve(found: Finetuned) -> str:
    if len(found.curve) < 2 or not found.before:
        return ""
    names = list(found.before)
    lines = []
    for number, task in enumerate(names):
        points = [
            (alpha, headline(reports[task])[1], f"alpha {alpha:g}: {percent(headline(reports[task])[1])}")
            for alpha, reports in found.curve
        ]
        lines.append((task, number, points))
    charts = _plot(
        "From the start to the fine-tuned model",
        "Across: alpha, the share of the fine-tuned weights. Up: "
        + ", ".join(f'<b class="c{number}">{_words(task)}</b>' for task, number, _ in lines),
        lines,
        lambda tick: f"{tick:g}",
    )
    learned = [task for task in names if task.startswith(OWN)]
    others = [task for task in names if task not in learned[:1]]
    if learned and others:
        pairs = [
            (
                other,
                number + 1,
                [
                    (headline(reports[learned[0]])[1], headline(reports[other])[1], f"alpha {alpha:g}")
                    for alpha, reports in found.curve
                ],
            )
            for number, other in enumerate(others)
        ]
        charts += _plot(
            "What was learned against what was kept",
            f"Across: {_words(learned[0])}. Up: "
            + ", ".join(f'<b class="c{number}">{_words(task)}</b>' for task, number, _ in pairs)
            + f". {_sums(found)}",
            pairs,
            lambda tick: f"{100 * tick:g} %",
        )
    return f'<h2>Between both models</h2><div class="charts">{charts}</div>'


def _sums(found: Finetuned) -> str:
    """Whether some alpha beats both ends on the sum of all tasks."""

    def total(reports: Reports) -> float:
        return sum(headline(report)[1] for report in reports.values())

    inner = [(total(reports), alpha) for alpha, reports in found.curve if 0 < alpha < 1]
    ends = [total(reports) for alpha, reports in found.curve if alpha in (0, 1)]
    if not inner or len(ends) < 2:
        return ""
    best, alpha = max(inner)
    gain = 100 * (best - max(ends))
    verb = "beats both ends" if gain > 0 else "does not beat the better end"
    return f"On the sum of all tasks, alpha {alpha:g} {verb} ({gain:+.1f} points)."


def _plot(
    title: str,
    note: str,
    lines: Sequence[tuple[str, int, Sequence[Point]]],
    show: Callable[[float], str],
) -> str:
    xs = [point[0] for _, _, points in lines for point in points]
    ys = [point[1] for _, _, points in lines for point in points]
    across, up = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))

    def at(point: Point) -> str:
        x = WIDTH * (point[0] - across[0]) / (across[-1] - across[0])
        return f"{x:.1f} {HEIGHT * (1 - (point[1] - up[0]) / (up[-1] - up[0])):.1f}"

    drawn = "".join(
        f'<path class="line c{number % 8}" d="M{"L".join(map(at, points))}"/>'
        + "".join(
            f'<path class="dot c{number % 8}" d="M{at(point)}h0"><title>{escape(point[2])}</title></path>'
            for point in points
        )
        for _, number, points in lines
    )
    height, width = up[-1] - up[0], across[-1] - across[0]
    grid = "".join(
        f'<path class="grid" d="M0 {HEIGHT * (1 - (tick - up[0]) / height):.1f}H{WIDTH}"/>' for tick in up
    )
    left = "".join(
        f'<span style="bottom:{100 * (tick - up[0]) / height:.2f}%">{100 * tick:.6g} %</span>' for tick in up
    )
    below = "".join(
        f'<span style="left:{100 * (tick - across[0]) / width:.2f}%"{" class=end" if tick == across[-1] else ""}>'
        f"{show(tick)}</span>"
        for tick in across
    )
    spoken = "; ".join(
        f"{task}: " + ", ".join(f"{point[2]} at {point[0]:.3g}, {point[1]:.3g}" for point in points)
        for task, _, points in lines
    )
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3><p></p><small>{note}</small></figcaption>'
        f'<div class="plot" role="img" aria-label="{escape(spoken)}"><div class="y" aria-hidden="true">{left}</div>'
        f'<div class="area"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{grid}'
        f'{drawn}</svg></div><div class="x" aria-hidden="true">{below}</div></div></figure>'
    )


def _calibration(found: Finetuned) -> str:
    charts = ""
    for said, reports in (("before", found.before), ("after", found.after)):
        report = reports.get("held_out")
        outcomes = None if report is None else report.outcomes
        curve = None if outcomes is None or outcomes.probability is None else reliability(outcomes)
        if curve is not None:
            charts += reliability_chart(curve, f"Reliability {said}")
    return (
        f'<section><h2>Calibration on the held-out part</h2><div class="charts">{charts}</div></section>'
        if charts
        else ""
    )


def _changes(found: Finetuned, held_out: "Source | None") -> str:
    before, after = found.before.get("held_out"), found.after.get("held_out")
    if before is None or after is None or held_out is None or after.outcomes is None:
        return ""
    place = dict(zip(after.outcomes.keys, after.outcomes.positions, strict=True))
    changes = compare("held_out", before, after).changes
    parts = []
    for gained, title in ((True, "Wrong before, right now"), (False, "Right before, wrong now")):
        chosen = [change for change in changes if change.gained == gained]
        if chosen:
            figures = "".join(_figure(change, held_out, place[change.key]) for change in chosen[:_SHOWN])
            of = f", {_SHOWN} of {len(chosen):,}" if len(chosen) > _SHOWN else f", {len(chosen):,}"
            parts.append(f'<h3>{title}{of}</h3><div class="mistakes">{figures}</div>')
    if not parts:
        asked = ", asked from image to text" if len(headlines(after)) > 1 else ""
        return f"<h2>Examples that changed</h2><p>None of the held-out part{asked}.</p>"
    return f"<section><h2>Examples that changed</h2>{''.join(parts)}</section>"


def _figure(change: Change, source: "Source", position: int) -> str:
    said = f"{change.first} before, {change.second} now" if change.target is not None else ""
    name = change.target or change.key
    try:
        picture = Image.fromarray(read_rgb(source[position].image))
    except DataError:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(name)}" title="{escape(change.key)}" '
        f'loading="lazy"><figcaption>{escape(name)}<span>{escape(said)}</span></figcaption></figure>'
    )


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title - Diptych fine-tuning</title>
<style>
${style}.hint code { white-space: nowrap; } .chart small b { margin-left: 0; }
.panel + .hint, .panel + .notice { margin-top: 1rem; }
</style>
</head>
<body>
<main>
<p class="brand">Diptych fine-tuning</p>
<h1>$title</h1>
<p class="lead">$lead</p>
<dl class="tiles">$tiles</dl>
$alarms
<h2>Before and after</h2>
<p class="hint">Before: the model as it was loaded, asked by the names of the classes. Start: what
training began with. After: the result. The differences are from before to after. Intervals are about which images were
tested. The held-out part chose the step, which flatters the result a little; data named with <code>--shift</code> or
<code>--keep</code> did not.</p>
$tasks
$split
$curve
$calibration
$changes
<h2>Recipe</h2><div class="panel recipe">$recipe</div>
<footer>Written by <code>diptych finetune</code>, version $version.</footer>
</main>
</body>
</html>
""")
