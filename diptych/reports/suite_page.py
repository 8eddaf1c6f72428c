"""The page that `diptych evaluate all` writes: one HTML file with everything inside, readable in light and dark."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import diptych
from diptych.evaluation.metrics import Interval
from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.suite.suite_report import (
    ClassRow,
    Reliability,
    Row,
    class_rows,
    confused_pairs,
    confusions,
    described,
    group_rows,
    headline_rows,
    interval_shown,
    metric_rows,
    outcomes_in_words,
    reliability,
    shown,
)
from diptych.evaluation.task_report import Outcomes, Report
from diptych.evaluation.zero_shot.reliability import Bin
from diptych.reports.charts import HEIGHT, WIDTH
from diptych.reports.run_style import STYLE
from diptych.wording import duration, percent

_CELLS = 16  # classes at most whose confusions are drawn as a square; more have a list of pairs alone
_PAIRS = 12
_CLASSES = 8  # rows of the table of classes that are seen without opening it


@dataclass(frozen=True)
class Mistake:
    """A picture that was called something else. data: of a PNG file."""

    data: bytes
    key: str
    target: str
    predicted: str
    probability: float | None  # of what it was called


def page(model: str, results: Sequence[Result], mistakes: Mapping[str, Sequence[Mistake]]) -> str:
    """The results of a suite as HTML. mistakes: of each task, by its name."""
    name = Path(model).name
    failed = [result for result in results if result.error is not None]
    sections = (_section(result, mistakes.get(result.name, ())) for result in results if result.report)
    return _PAGE.substitute(
        style=STYLE + PAGE_STYLE,
        title=escape(name),
        lead=_lead(model, name, results),
        failed="".join(
            f'<p class="notice"><b>{escape(one.name)}</b> failed: {escape(str(one.error))}</p>'
            for one in failed
        ),
        summary=_unbroken(_summary([row for result in results for row in headline_rows(result)])),
        sections=_unbroken("".join(sections)),
        version=diptych.__version__,
    )


def _unbroken(html: str) -> str:
    """A number stays on one line with its sign."""
    return html.replace(" %", "&nbsp;%")


def _lead(model: str, name: str, results: Sequence[Result]) -> str:
    done = [result for result in results if result.report is not None]
    tasks = "1 task" if len(results) == 1 else f"{len(results)} tasks"
    measured = tasks if len(done) == len(results) else f"{len(done)} of {tasks}"
    took = duration(sum(result.seconds for result in done))
    place = "" if name == model else f' <code class="place">{escape(model)}</code>'
    return f"<strong>{measured}</strong> measured in {took}.{place}"


def _summary(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th scope="row"><a href="#{escape(row.task)}">{_breakable(row.task)}</a>'
        f"<small>{_words(row.metric)}, {row.count:,} images</small></th>"
        f"<td><b>{shown(row.metric, row.value)}</b></td>{_range(row.metric, row.interval)}"
        f"<td>{shown(row.metric, row.chance)}</td><td>{shown(row.metric, row.majority)}</td>"
        f'<td class="wide">{_bar(row)}</td></tr>'
        for row in rows
    )
    return (
        '<div class="panel scroll"><table><thead><tr><th scope="col">task</th><th scope="col">value</th>'
        '<th scope="col">95 % interval</th><th scope="col">chance</th><th scope="col">majority</th>'
        '<th scope="col" class="wide" aria-label="value as a bar"></th></tr></thead>'
        f"<tbody>{cells}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """A name that a narrow column may break after its underscores."""
    return escape(name).replace("_", "_<wbr>")


def _bar(row: Row) -> str:
    """The value as a bar, its interval as a line over it, chance and the majority class as marks."""
    if not 0 <= row.value <= 1:
        return ""
    low, high = row.interval or (row.value, row.value)
    marks = "".join(
        f'<u style="left:{100 * level:.2f}%"></u>'
        for level in (row.chance, row.majority)
        if level is not None
    )
    return (
        f'<span class="share" aria-hidden="true"><i style="width:{100 * row.value:.2f}%"></i>'
        f'<s style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></s>{marks}</span>'
    )


def _section(result: Result, mistakes: Sequence[Mistake]) -> str:
    report = result.report
    assert report is not None
    skipped = ", ".join(f"{count:,} {escape(reason)}" for reason, count in report.skipped.items())
    how = described(report)
    parts = [
        f'<section id="{escape(result.name)}"><h2>{escape(result.name)}</h2>'
        f'<p class="hint">{escape(report.task)} on {escape(report.data)}, {report.scores.count:,} images'
        f"{f'; {escape(how)}' if how else ''}{f'; skipped: {skipped}' if skipped else ''}"
        f"{''.join(f'; {escape(remark)}' for remark in report.remarks)}.</p>",
        _metrics(result, report),
    ]
    outcomes = outcomes_in_words(result)
    if outcomes is not None:
        parts.append(_classes(outcomes))
    if mistakes:
        parts.append(_mistakes(mistakes))
    return "".join(parts) + "</section>"


def _metrics(result: Result, report: Report) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_words(row.metric)}</th><td>{shown(row.metric, row.value)}</td>'
        f"{_range(row.metric, row.interval)}<td>{shown(row.metric, row.chance)}</td></tr>"
        for row in metric_rows(result)
    )
    majority = report.scores.chance.get("majority")
    if majority is not None:
        rows += (
            '<tr><th scope="row">always the most frequent class</th><td>-</td><td>-</td>'
            f"<td>{shown('', majority)}</td></tr>"
        )
    table = _table(("metric", "value", "95 % interval", "chance"), rows)
    groups = group_rows(result)
    if not groups:
        return table
    of_groups = "".join(
        f'<tr><th scope="row">{escape(row.task)}</th><td>{row.count:,}</td><td>{shown(row.metric, row.value)}</td>'
        f"{_range(row.metric, row.interval)}<td>{shown(row.metric, row.chance)}</td></tr>"
        for row in groups
    )
    return table + _table(("group", "images", _words(groups[0].metric), "95 % interval", "chance"), of_groups)


def _classes(outcomes: Outcomes) -> str:
    labels, matrix = confusions(outcomes)
    found = reliability(outcomes)
    charts = "" if found is None else reliability_chart(found)
    if len(labels) <= _CELLS:
        charts += _heat_map(labels, matrix.tolist())
    charts += _pairs(outcomes)
    # One image says nothing of a class.
    rows = [row for row in class_rows(outcomes) if row.count > 1]
    return f'<div class="charts">{charts}</div>{_class_table(rows) if rows else ""}'


def reliability_chart(found: Reliability, title: str = "Reliability") -> str:
    """Stated probabilities against the share that was right, as a figure."""
    sure = found.confidence - found.accuracy
    leaning = "too sure" if sure > 0 else "not sure enough"
    spoken = "; ".join(
        f"said {percent(part.confidence)}, right {percent(part.accuracy)}, {part.count} images"
        for part in found.curve
    )
    most = max(part.count for part in found.curve)
    bars = "".join(_mass(part, most) for part in found.curve)
    line = "L".join(_at(part.confidence, part.accuracy) for part in found.curve)
    dots = "".join(
        f'<path class="dot c0" d="M{_at(part.confidence, part.accuracy)}h0"/>' for part in found.curve
    )
    ticks = (0, 0.25, 0.5, 0.75, 1)
    ups = "".join(f'<span style="bottom:{100 * tick:g}%">{100 * tick:g} %</span>' for tick in ticks)
    grid = "".join(f'<path class="grid" d="M0 {HEIGHT * tick:g}H{WIDTH}"/>' for tick in ticks)
    sides = "".join(
        f'<span style="left:{100 * tick:g}%"{" class=end" if tick == 1 else ""}>{100 * tick:g} %</span>'
        for tick in ticks
    )
    return (
        '<figure class="chart"><figcaption><h3>' + escape(title) + "</h3>"
        f'<p><b class="c0">{percent(found.error)}</b></p>'
        f"<small>Expected calibration error; a calibrated model would show {percent(found.by_chance)} with as many "
        f"images. Across: the probability that was stated, {percent(found.confidence)} on average. Up: the share that "
        f"was right, {percent(found.accuracy)}: {leaning} by {percent(abs(sure))}. Faint bars: the number of images."
        f'</small></figcaption><div class="plot" role="img" aria-label="{escape(spoken)}">'
        f'<div class="y" aria-hidden="true">{ups}</div><div class="area"><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none" aria-hidden="true">{grid}{bars}<path class="mark" d="M0 {HEIGHT}L{WIDTH} 0"/>'
        f'<path class="line c0" d="M{line}"/>{dots}</svg></div>'
        f'<div class="x" aria-hidden="true">{sides}</div></div></figure>'
    )


def _mass(part: Bin, most: int) -> str:
    """The images of a bin as a bar from below, with what a pointer is told."""
    left, width = WIDTH * part.low, WIDTH * (part.high - part.low)
    height = HEIGHT * 0.9 * part.count / most
    told = f"said {percent(part.confidence)}, right {percent(part.accuracy)}: {part.count:,} images"
    return (
        f'<path class="mass" d="M{left + 0.06 * width:.1f} {HEIGHT}v-{height:.1f}h{0.88 * width:.1f}v{height:.1f}z"/>'
        f'<path class="band" d="M{left:.1f} 0h{width:.1f}v{HEIGHT}h-{width:.1f}z"><title>{told}</title></path>'
    )


def _at(across: float, up: float) -> str:
    return f"{WIDTH * across:.1f} {HEIGHT * (1 - up):.1f}"


def _heat_map(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    heads = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    upright = " upright" if max(map(len, labels)) <= 2 else ""
    rows = []
    for row, (label, counts) in enumerate(zip(labels, matrix, strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td class="{"hit" if row == column else "miss"}{" deep" if count > total / 2 else ""}" '
            f'style="--share:{100 * count / total:.0f}%" '
            f'title="{escape(label)} called {escape(labels[column])}: {count:,} of {sum(counts):,}">'
            f"{f'{count:,}' if count else ''}</td>"
            for column, count in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        '<figure class="chart"><figcaption><h3>Confusion</h3><small>A row a class, a column what it was called; the '
        'shade is the share of the row.</small></figcaption><div class="scroll">'
        f'<table class="heat{upright}"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def _pairs(outcomes: Outcomes) -> str:
    pairs = [pair for pair in confused_pairs(outcomes) if pair.count > 1]
    if not pairs:
        return ""
    most = pairs[0].count
    rows = "".join(
        f'<tr><th scope="row">{escape(pair.target)} <small>called</small> {escape(pair.predicted)}</th>'
        f"<td>{pair.count:,}</td><td>{percent(pair.share)}</td>"
        f'<td class="thin"><i style="width:{100 * pair.count / most:.0f}%"></i></td></tr>'
        for pair in pairs[:_PAIRS]
    )
    return (
        '<figure class="chart"><figcaption><h3>Confused most often</h3><small>Images, and their share of the '
        f"class.{f' The first {_PAIRS} of {len(pairs):,} pairs.' if len(pairs) > _PAIRS else ''}</small></figcaption>"
        f'<div class="scroll"><table class="pairs"><tbody>{rows}</tbody></table></div></figure>'
    )


def _class_table(rows: Sequence[ClassRow]) -> str:
    def body(some: Sequence[ClassRow]) -> str:
        return "".join(
            f'<tr><th scope="row">{escape(row.label)}</th><td>{row.count:,}</td><td>{shown("", row.accuracy)}</td>'
            f"{_range('', row.interval)}<td>{_mistaken(row)}</td></tr>"
            for row in some
        )

    heads = ("class", "images", "right", "95 % interval", "mostly called")
    if len(rows) <= 2 * _CLASSES:
        return (
            f"<h3>Classes of two images or more, the least often right first</h3>{_table(heads, body(rows))}"
        )
    return (
        f"<h3>The {_CLASSES} classes of {len(rows):,} that are least often right</h3>"
        f"{_table(heads, body(rows[:_CLASSES]))}<details><summary>The other {len(rows) - _CLASSES:,} classes</summary>"
        f"{_table(heads, body(rows[_CLASSES:]))}</details>"
    )


def _mistaken(row: ClassRow) -> str:
    return "-" if row.mistaken_for is None else f"{escape(row.mistaken_for)} ({row.times:,})"


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(one.data).decode("ascii")}" '
        f'alt="{escape(one.target)}" title="{escape(one.key)}" loading="lazy"><figcaption>{escape(one.target)}'
        f"<span>called {escape(one.predicted)}{_sure(one.probability)}</span></figcaption></figure>"
        for one in mistakes
    )
    return f'<h3>Mistakes, chosen at random</h3><div class="mistakes">{figures}</div>'


def _sure(probability: float | None) -> str:
    return "" if probability is None else f", {percent(probability)}"


def _table(heads: Sequence[str], rows: str) -> str:
    titles = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f'<div class="panel scroll"><table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>'


def _range(metric: str, interval: Interval | None) -> str:
    return f'<td class="range">{interval_shown(metric, interval)}</td>'


def _words(metric: str) -> str:
    return escape(metric.replace("_", " "))


# Beside the style of `diptych report`, which has panels, tables and charts.
PAGE_STYLE = """
a { color: var(--accent); }
.lead { overflow-wrap: anywhere; } .place { font-size: 0.82rem; }
section { scroll-margin-top: 1rem; } section .panel + .panel { margin-top: 0.9rem; }
section .charts { display: block; columns: 2; column-gap: 1rem; margin-top: 1rem; }
section .chart { break-inside: avoid; margin-bottom: 1rem; } section h3 { margin: 1.5rem 0 0.6rem; }
section .chart h3 { margin: 0; } section details { margin-top: 0.8rem; }
th small { display: block; color: var(--quiet); font-size: 0.8rem; font-weight: 400; }
th[scope=row] { white-space: normal; overflow-wrap: anywhere; min-width: 7.5rem; }
.wide { width: 30%; min-width: 10rem; }
.share { position: relative; display: block; height: 0.95rem; border-left: 1px solid var(--line);
  border-right: 1px solid var(--line); }
.share i, .share s, .share u { position: absolute; display: block; text-decoration: none; }
.share i { top: 0.25rem; height: 0.45rem; left: 0; border-radius: 0 3px 3px 0; background: var(--accent);
  opacity: 0.55; }
.share s { top: 0.44rem; height: 2px; background: var(--ink); }
.share u { top: 0; bottom: 0; border-left: 1px dashed var(--quiet); }
svg .mass { fill: var(--c0); fill-opacity: 0.16; stroke: none; }
.heat { width: auto; font-size: 0.78rem; margin-top: 0.4rem; }
.heat th, .heat td { padding: 0; border: 0; } .heat tbody tr { border: 0; }
.heat tbody td { width: 2.1rem; height: 2.1rem; text-align: center; border: 1px solid var(--panel);
  border-radius: 5px; background: color-mix(in srgb, var(--shade) var(--share), var(--grid)); }
.heat .deep { color: var(--paper); }
.heat .hit { --shade: var(--good); } .heat .miss { --shade: var(--warm); }
.heat tbody th { padding-right: 0.6rem; min-width: 0; max-width: 9rem; font-weight: 400; line-height: 1.2; }
.heat thead th { vertical-align: bottom; font-weight: 400; min-width: 0; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 8rem; overflow: hidden;
  text-overflow: ellipsis; padding-top: 0.35rem; }
.heat.upright thead span { writing-mode: initial; transform: none; }
.pairs { font-size: 0.88rem; margin-top: 0.3rem; } .pairs th small { display: inline; }
.pairs tr:first-child { border-top: 0; } .pairs td { padding-left: 0.9rem; }
.thin { width: 22%; min-width: 3rem; }
.thin i { display: block; height: 6px; border-radius: 3px; background: var(--warm); min-width: 2px; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: 0.9rem; }
.mistakes img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; border: 1px solid var(--line);
  border-radius: 10px; padding: 8px; image-rendering: auto; }
.mistakes figcaption { font-size: 0.8rem; line-height: 1.3; margin-top: 0.3rem; overflow-wrap: anywhere; }
.mistakes span { display: block; color: var(--warm); }
@media (max-width: 48rem) { section .charts { columns: 1; } }
@media (max-width: 40rem) {
  .wide { display: none; }
  th, td { padding-left: 0.7rem; } th[scope=row] { min-width: 5.5rem; }
  .range { white-space: normal; min-width: 4.6rem; }
  .mistakes { grid-template-columns: repeat(3, 1fr); gap: 0.7rem; }
  .heat { font-size: 0.68rem; } .heat tbody td { width: 1.6rem; height: 1.7rem; }
}
"""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title - Diptych evaluation</title>
<style>
$style</style>
</head>
<body>
<main>
<p class="brand">Diptych evaluation</p>
<h1>$title</h1>
<p class="lead">$lead</p>
$failed
<h2>All tasks</h2>
<p class="hint">A bar is the value, the line over it the 95 % interval; dashed: chance, and always naming the most
frequent class.</p>
$summary
$sections
<footer>Written by <code>diptych evaluate all</code>, version $version.</footer>
</main>
</body>
</html>
""")
