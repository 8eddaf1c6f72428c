"""The page that `diptych report` writes: one HTML file with everything inside, readable in light and dark."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from string import Template
from typing import Any

import diptych
from diptych.reports.charts import Chart, Series, draw
from diptych.reports.run_style import STYLE
from diptych.runs.recipe_text import section_text
from diptych.runs.run_summary import RunReport
from diptych.wording import count_of, duration

_COLOURS = 8  # of lines; further runs begin again
_NEAR_CHANCE = 0.98  # of ln N: a loss above it after the run's first part is that of guessing
_ROWS = 12  # of the table of numbers
_MATCHED = "the text of an image, among all of a batch"
_RIGHT = {  # what counts as right, by objective, where it is something else
    "simclr": "the other view of an image, among all of a batch",
    "labels": "the class of an image",
    "label-distillation": "the class of an image",
    "word-prediction": "a word of the text, as the likeliest",
}


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def plain(value: float) -> str:
    """Four digits, with thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def page(runs: Sequence[RunReport], captions: str = "") -> str:
    """The runs as HTML; the first gives the page its title. Raises ValueError without a run.

    captions: a section of `report_captions`, or nothing.
    """
    if not runs:
        raise ValueError("a report needs a run")
    names = _names(runs)
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    body = _one(runs[0]) if len(runs) == 1 else _several(runs, names)
    return _PAGE.substitute(
        style=STYLE,
        title=escape(title),
        body=body,
        captions=captions,
        charts="".join(_charts(runs, names)) or "<p>Nothing has been logged yet.</p>",
        evaluations=_evaluations(runs, names),
        recipe=_recipes(runs, names),
        numbers=_numbers(runs[0]) if len(runs) == 1 else "",
        version=diptych.__version__,
    )


def _names(runs: Sequence[RunReport]) -> list[str]:
    """The folders' names, with their parents' where two are equal."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.folder.resolve().parent.name}/{name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _one(run: RunReport) -> str:
    tiles = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>"
        for name, value, note in _tiles(run)
    )
    notices = "".join(f'<p class="notice">{notice}</p>' for notice in _notices(run))
    return (
        f'<p class="lead">{_standing(run)}</p>{_progress(run)}<dl class="tiles">{tiles}</dl>'
        f"{notices}{_verdict(run)}"
    )


def _several(runs: Sequence[RunReport], names: Sequence[str]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><i class="key c{number % _COLOURS}"></i>{escape(name)}</th><td>{run.state}</td>'
        f"<td>{run.step:,}</td><td>{_or_dash(run.mean('loss'), plain)}</td>"
        f"<td>{_or_dash(run.mean('accuracy'), percent)}</td>"
        f"<td>{_or_dash(run.mean('samples_per_second'), plain)}</td>"
        f"<td>{_or_dash(run.data_share, percent)}</td><td>{_or_dash(_seconds(run), duration)}</td></tr>"
        for number, (name, run) in enumerate(zip(names, runs, strict=True))
    )
    notices = "".join(
        f'<p class="notice"><b>{escape(name)}</b>: {notice}</p>'
        for name, run in zip(names, runs, strict=True)
        for notice in _notices(run)
    )
    return (
        '<div class="panel scroll"><table><thead><tr><th scope="col">run</th><th scope="col">state</th>'
        '<th scope="col">step</th><th scope="col">loss</th><th scope="col">batch accuracy</th>'
        '<th scope="col">pairs/s</th><th scope="col">waiting for data</th><th scope="col">time</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notices}"
    )


def _standing(run: RunReport) -> str:
    took, left = _or_dash(_seconds(run), duration), run.seconds_left
    batch = run.recipe.get("training", {}).get("batch_size")
    steps = f"<strong>{run.step:,}</strong> steps" + (
        f" of {batch:,} pairs" if isinstance(batch, int) else ""
    )
    if run.state == "done":
        return f"Done: {steps} in {took}."
    of = "" if run.total is None else f", of {run.total:,} steps"
    if run.state == "running":
        rest = "" if left is None else f" About <strong>{duration(left)}</strong> are left."
        return f"Running: {steps} so far{of}.{rest}"
    rest = "" if left is None else f", which takes about {duration(left)} more"
    return f"Stopped after {steps}{of}. <code>diptych train ... --resume</code> goes on with it{rest}."


def _progress(run: RunReport) -> str:
    if run.total is None or run.state == "done":
        return ""
    share = min(1.0, run.step / run.total)
    return (
        f'<div class="progress" role="progressbar" aria-label="done" aria-valuenow="{100 * share:.0f}">'
        f'<i style="width:{100 * share:.1f}%"></i></div>'
    )


def _tiles(run: RunReport) -> Iterator[tuple[str, str, str]]:
    loss, chance = run.mean("loss"), run.chance_loss
    if loss is not None:
        yield "Loss", plain(loss), "" if chance is None else f"guessing gives {chance:.2f}"
    accuracy = run.mean("accuracy")
    if accuracy is not None:
        objective = run.recipe.get("objective", {}).get("name", "clip")
        yield "Right in the batch", percent(accuracy), _RIGHT.get(objective, _MATCHED)
    samples = run.final().get("samples")
    if samples is not None:
        yield "Pairs seen", count_of(int(samples)), ""
    speed = run.mean("samples_per_second")
    if speed is not None:
        yield "Pairs a second", plain(speed), ""
    share = run.data_share
    if share is not None:
        yield "Waiting for data", percent(share), str(run.verdict)
    if run.state == "done" and (seconds := _seconds(run)) is not None:
        yield "Time", duration(seconds), ""
    elif run.total is not None:
        yield "Done", percent(run.step / run.total), f"step {run.step:,} of {run.total:,}"


def _notices(run: RunReport) -> Iterator[str]:
    chance, loss = run.chance_loss, run.mean("loss")
    if chance is not None and loss is not None and len(run.records) > 10 and loss > _NEAR_CHANCE * chance:
        yield (
            "The loss is that of guessing: nothing has been learned. "
            "<code>diptych doctor RECIPE</code> looks for the reason in the recipe and the data."
        )
    if run.not_finite:
        counts = ", ".join(f"{escape(name)} {count:,} times" for name, count in run.not_finite.items())
        yield f"Numbers of the log were infinite or no number: {counts}."
    if run.damaged:
        lines = "line of the log was" if run.damaged == 1 else "lines of the log were"
        yield f"{run.damaged:,} {lines} cut short or damaged, and left out."


def _verdict(run: RunReport) -> str:
    if run.verdict is None or run.data_share is None:
        return ""
    waited = f"The steps waited for data {percent(run.data_share)} of the time."
    if run.verdict == "data-bound":
        advice = (
            "More <code>data.workers</code>, <code>data.cache = true</code> or smaller pictures make this run "
            "faster; a faster processor or GPU does not."
        )
    else:
        advice = "A faster processor or GPU makes this run faster; more workers do not."
    return (
        f'<p class="verdict {run.verdict}"><strong>{run.verdict.capitalize()}.</strong> {waited} {advice}</p>'
    )


def _charts(runs: Sequence[RunReport], names: Sequence[str]) -> Iterator[str]:
    last = max([1, *(run.step for run in runs), *(run.total or 0 for run in runs if run.state == "running")])
    chances = {run.chance_loss for run in runs}
    chance = chances.pop() if len(chances) == 1 else None
    mark = None if chance is None else (f"guessing {chance:.2f}", chance)

    def chart(key: str, title: str, note: str, show: Callable[[float], str], **options: Any) -> Iterator[str]:
        series = _series(runs, names, key)
        if series:
            yield draw(Chart(title=title, note=note, series=series, show=show, **options), last)

    yield from chart("loss", "Loss", "nats", plain, noisy=True, mark=mark, corner="mean")
    yield from chart(
        "accuracy", "Accuracy in the batch", "share of images", percent, noisy=True, corner="mean"
    )
    yield from chart("logit_scale", "Logit scale", "1 / temperature, at most 100", plain)
    yield from chart("logit_bias", "Logit bias", "added to every logit", plain)
    yield from chart(
        "gradient_norm", "Gradient norm", "before clipping", plain, noisy=True, spread=True, corner="mean"
    )
    yield from chart("learning_rate", "Learning rate", "its peak, and each step's", plain, corner="highest")
    yield from chart(
        "samples_per_second", "Speed", "pairs a second", plain, noisy=True, from_zero=True, corner="mean"
    )
    yield from chart(
        "data_share",
        "Waiting for data",
        "share of the time",
        percent,
        noisy=True,
        from_zero=True,
        corner="mean",
    )
    for key in dict.fromkeys(name for run in runs for name in run.evaluations):
        show, note = (plain, "evaluation") if _is_rank(runs, key) else (percent, "evaluation, share")
        best = list(_best_points(runs, names, key))
        if best:
            note += "; the dot in another colour is the best, kept in model-best/"
        series = [*_series(runs, names, key), *best]
        yield draw(Chart(title=key.replace("_", " "), note=note, series=series, show=show, dots=True), last)


def _best_points(runs: Sequence[RunReport], names: Sequence[str], key: str) -> Iterator[Series]:
    """Of each run that keeps its best by this metric, that one."""
    for number, (name, run) in enumerate(zip(names, runs, strict=True)):
        best = run.best
        if best is not None and best.metric == key:
            point = (float(best.step), best.value)
            yield Series(f"{name}, best", (len(runs) + number) % _COLOURS, [point])


def _series(runs: Sequence[RunReport], names: Sequence[str], key: str) -> list[Series]:
    named = enumerate(zip(names, runs, strict=True))
    found = [Series(name, number % _COLOURS, run.curve(key)) for number, (name, run) in named]
    return [series for series in found if series.points]


def _is_rank(runs: Sequence[RunReport], key: str) -> bool:
    """Whether a metric is no share: its values leave 0..1."""
    return any(not 0 <= value <= 1 for run in runs for _, value in run.curve(key))


def _evaluations(runs: Sequence[RunReport], names: Sequence[str]) -> str:
    keys = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    if not keys:
        return ""
    rows = []
    for key in keys:
        show = plain if _is_rank(runs, key) else percent
        cells = []
        for run in runs:
            curve, best = run.curve(key), run.best
            cell = show(curve[-1][1]) if curve else "-"
            if best is not None and best.metric == key:
                cell += f" (best {show(best.value)}, step {best.step:,})"
            cells.append(f"<td>{cell}</td>")
        rows.append(f'<tr><th scope="row">{escape(key.replace("_", " "))}</th>{"".join(cells)}</tr>')
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in (names if len(runs) > 1 else ["last"]))
    return (
        f'<h2>Evaluations</h2><div class="panel scroll"><table><thead><tr><th scope="col">metric</th>{heads}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _recipes(runs: Sequence[RunReport], names: Sequence[str]) -> str:
    if len(runs) == 1:
        recipe = runs[0].recipe
        if not recipe:
            return ""
        sections = "".join(
            f"<pre>{escape(section_text(section, values))}</pre>" for section, values in recipe.items()
        )
        return f'<h2>Recipe</h2><div class="panel recipe">{sections}</div>'
    flat = [dict(_flat(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    differ = [key for key in keys if len({settings.get(key, "") for settings in flat}) > 1]
    if not differ:
        return "<h2>Recipes</h2><p>They are the same.</p>"
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(key)}</code></th>'
        + "".join(f"<td>{escape(settings.get(key, '-'))}</td>" for settings in flat)
        + "</tr>"
        for key in differ
    )
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return (
        f'<h2>What differs in the recipes</h2><div class="panel scroll"><table><thead><tr><th scope="col">setting</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value)


def _numbers(run: RunReport) -> str:
    """A table of a few logged steps, for whoever cannot read curves."""
    if not run.records:
        return ""
    columns = {"loss": plain, "accuracy": percent, "logit_scale": plain, "gradient_norm": plain}
    columns |= {"learning_rate": plain, "samples_per_second": plain}
    last = len(run.records) - 1
    chosen = sorted({round(last * place / (_ROWS - 1)) for place in range(_ROWS)})
    heads = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in columns)
    rows = "".join(
        f'<tr><th scope="row">{run.records[place]["step"]:,.0f}</th>'
        + "".join(
            f"<td>{_or_dash(run.records[place].get(name), show)}</td>" for name, show in columns.items()
        )
        + "</tr>"
        for place in chosen
    )
    return (
        '<details><summary>Some of the numbers</summary><div class="panel scroll"><table><thead><tr>'
        f'<th scope="col">step</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _seconds(run: RunReport) -> float | None:
    return run.final().get("seconds")


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title - Diptych run</title>
<style>
$style</style>
</head>
<body>
<main>
<p class="brand">Diptych run</p>
<h1>$title</h1>
$body
$captions
<h2>Curves</h2>
<p class="hint">Over optimizer steps. A faint line is as logged; the line over it is the mean of a twentieth of the run,
and its number that of the last tenth.</p>
<div class="charts">
$charts
</div>
$evaluations
$recipe
$numbers
<footer>Written by <code>diptych report</code>, version $version.</footer>
</main>
</body>
</html>
""")
