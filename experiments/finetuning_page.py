"""The tables and the picture of fine-tuning: gains on what was trained on, losses elsewhere, and what lies between."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib.figure import Figure

from diptych.atomic import write_text
from diptych.reports.markdown import markdown_table
from diptych.reports.plots.plot_files import colour, plot_style, save_plot
from diptych.reports.render import render_text

Job = Mapping[str, Any]
Measured = Mapping[str, Mapping[str, Any]]

TITLES = {
    "emoji": "Emoji in nine groups",
    "emoji-few": "Sixteen emoji a group",
    "fashion": "Fashion-MNIST",
}
COLUMNS = {
    "test": "in distribution",
    "shift": "vendor shift",
    "clothes": "other: Fashion-MNIST",
    "groups": "other: emoji groups",
    "names": "other: 500 names",
}
OWN = ("test", "shift")  # all other columns are of tasks that were not trained on
COLOURS = {"emoji": "c0", "emoji-few": "c1", "fashion": "c2"}  # of the palette
TEMPLATE = Path(__file__).with_name("templates") / "finetuning.md"


def total(measured: Measured, half: int | None = None) -> float:
    """In distribution, and the shift, and the mean of the other tasks; of all pictures, or of one half of each."""
    values = {name: each["top1"] if half is None else each["halves"][half] for name, each in measured.items()}
    own = [values[name] for name in OWN if name in values]
    return float(sum(own) + fmean(value for name, value in values.items() if name not in OWN))


def between_of(job: Job) -> dict[float, Measured]:
    """What was measured between the ends of a job of `full`, by alpha."""
    return {
        point["alpha"]: {name: each for name, each in point.items() if name != "alpha"}
        for point in job["between"]
    }


def gain(start: Measured, job: Job) -> tuple[float, float]:
    """The sum at an alpha between the ends less that of the better end, and that alpha.

    So that the choice does not flatter it, the alpha is chosen on one half of the pictures and judged on the other,
    both ways; the mean of both, and the smaller alpha.
    """
    inner = between_of(job)
    found = []
    for choosing, judging in ((0, 1), (1, 0)):
        alpha = max(inner, key=lambda alpha: total(inner[alpha], choosing))
        end = max((start, job["measured"]), key=lambda end: total(end, choosing))
        found.append((total(inner[alpha], judging) - total(end, judging), alpha))
    return fmean(each for each, _ in found), min(alpha for _, alpha in found)


def rows_of(jobs: Sequence[Job]) -> Iterator[tuple[str, list[Measured]]]:
    """What is in each row of a set's table: its name, and what was measured, a seed each."""
    by_method: dict[str, list[Job]] = {}
    for job in jobs:
        by_method.setdefault(job["method"], []).append(job)
    yield "as it was, by words", [job["measured"] for job in by_method.pop("start")]
    yield "a linear probe alone", [job["measured"] for job in by_method.pop("probe")]
    for method, found in by_method.items():
        yield f"`{method}`", [job["measured"] for job in found]
        if method == "full":
            for alpha in between_of(found[0]):
                yield f"`wise-ft`, alpha {alpha:g}", [between_of(job)[alpha] for job in found]


def table(jobs: Sequence[Job]) -> str:
    columns = list(jobs[0]["measured"])
    head = ["", "seeds", *(COLUMNS[name] for name in columns), "sum"]
    rows = []
    for name, found in rows_of(jobs):
        cells = [_cell([each[column]["top1"] for each in found]) for column in columns]
        rows.append([name, str(len(found)), *cells, _cell([total(each) for each in found])])
    first = jobs[0]["measured"]
    chance = [f"{100 * first[column]['chance']:.1f}" for column in columns]
    counts = [f"{first[column]['count']:,}" for column in columns]
    rows += [["chance", "", *chance, ""], ["pictures", "", *counts, ""]]
    return markdown_table(head, rows)


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def verdict(jobs: Sequence[Job]) -> str:
    """Whether weights between the ends beat both of them."""
    start = next(job["measured"] for job in jobs if job["method"] == "start")
    full = [job for job in jobs if job["method"] == "full"]
    gains = [gain(start, job) for job in full]
    shown = ", ".join(f"{100 * each:+.1f} at alpha {alpha:g}" for each, alpha in gains)
    how = "beats" if all(each > 0 for each, _ in gains) else "does not always beat"
    if all(each <= 0 for each, _ in gains):
        how = "does not beat"
    return f"On the sum, an alpha between the ends {how} the better end: {shown} points, a seed each.\n"


def steps(jobs: Sequence[Job]) -> str:
    """Where a run ended with the start, because no step was better on the held-out part."""
    kept = [f"`{job['method']}` (seed {job['seed']})" for job in jobs if job.get("step") == 0]
    return (
        f"No step was better than the start for {', '.join(kept)}: the result is the start.\n" if kept else ""
    )


def plot(path: Path, sets: Mapping[str, Sequence[Job]]) -> None:
    """From the start (open) to the end of `full` (filled), and `lp-ft` (diamonds): learned against kept."""
    with plot_style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axis = figure.subplots()
        for name, jobs in sets.items():
            start = next(job["measured"] for job in jobs if job["method"] == "start")
            shade = colour(COLOURS[name])
            for job in (job for job in jobs if job["method"] == "full"):
                line = [_point(each) for each in (start, *between_of(job).values(), job["measured"])]
                label = TITLES[name] if job["seed"] == 0 else None
                axis.plot(*zip(*line, strict=True), color=shade, linewidth=1.2, marker=".", label=label)
                axis.plot(*line[-1], color=shade, marker="o")
            axis.plot(
                *_point(start), color=shade, marker="o", markerfacecolor=colour("panel"), linestyle="none"
            )
            for job in (job for job in jobs if job["method"] == "lp-ft"):
                axis.plot(*_point(job["measured"]), color=shade, marker="D", linestyle="none")
        axis.set_xlabel("in distribution, top-1 in %")
        axis.set_ylabel("mean of the other tasks, top-1 in %")
        axis.legend(fontsize=9, loc="lower right")
        save_plot(figure, path, "In distribution against the other tasks")


def _point(measured: Measured) -> tuple[float, float]:
    others = [each["top1"] for name, each in measured.items() if name not in OWN]
    return 100 * measured["test"]["top1"], 100 * fmean(others)


def write_page(folder: Path, jobs: Sequence[Job]) -> None:
    """finetuning.md, finetuning.svg and, for others to draw, finetuning.json."""
    names = list(dict.fromkeys(job["set"] for job in jobs))
    sets = {name: [job for job in jobs if job["set"] == name] for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "finetuning.json", json.dumps(list(jobs), indent=1) + "\n")
    plot(folder / "finetuning.svg", sets)
    sections = [
        f"## {TITLES[name]}\n\n{table(each)}\n{verdict(each)}{steps(each)}" for name, each in sets.items()
    ]
    text = render_text(TEMPLATE, **jobs[0]["size"], sections="\n".join(sections))
    write_text(folder / "finetuning.md", text.rstrip() + "\n")
