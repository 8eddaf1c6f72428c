"""The page of `figure2.py`: its words, its tables and its plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from figure2_results import (
    ARMS,
    ERRORS,
    PAPER,
    SHARE,
    Job,
    arms_of,
    compared_at,
    comparisons,
    curve_of,
    learned,
    reached,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from diptych.atomic import write_text
from diptych.reports.markdown import markdown_table
from diptych.reports.plots.plot_files import colour, plot_style, save_plot
from diptych.reports.render import render_text

TEMPLATE = Path(__file__).with_name("templates") / "figure2.md"
COLOURS = dict(zip(ARMS, ("c7", "c1", "c2", "c0"), strict=True))  # of the palette


def outcome(condition: str, arms: Mapping[str, Sequence[Job]]) -> str:
    """Return the arms by the images that they need, whether the paper has that order, and the significant ratios."""
    if not learned(arms):
        return f"- {condition}: no arm did better than guessing."
    needed = {arm: fmean(math.log(images) for images in each) for arm, each in reached(arms).items()}
    order = sorted(needed, key=needed.__getitem__)
    known = [arm for arm in order if arm in PAPER]
    same = known == [arm for arm in PAPER if arm in known]
    said = "the order of the paper" if same else "not the order of the paper"
    clear = [
        f"{each.slow} over {each.fast}" if each.pictures[1] > 1 else f"{each.fast} over {each.slow}"
        for each in comparisons(arms)
        if each.pictures[1] > 1 or (each.pictures[2] < 1 and not each.never)
    ]
    beyond = f"with intervals above 1: {'; '.join(clear)}" if clear else "no ratio has an interval above 1"
    return f"- {condition}: {' → '.join(order)} ({said}); {beyond}."


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def section(condition: str, arms: Mapping[str, Sequence[Job]]) -> str:
    level, needed = compared_at(arms), reached(arms)
    rows = []
    for arm, jobs in arms.items():
        last = [curve_of(job)[-1][1] for job in jobs]
        to_level = fmean(needed[arm])
        whole = [curve_of(job, "top1_whole_text")[-1][1] for job in jobs]
        rows.append(
            [
                arm,
                f"{jobs[0]['flops'] / 1e6:.0f}",
                f"{jobs[0]['rate']:g}",
                f"{percent(fmean(last))} ({percent(min(last))} to {percent(max(last))})",
                percent(fmean(whole)) if "top1_whole_text" in jobs[0]["curve"][-1] else "",
                f"{to_level:,.0f}" if math.isfinite(to_level) else f"not in {curve_of(jobs[0])[-1][0]:,.0f}",
                f"{to_level * jobs[0]['flops'] / 1e12:,.2f}" if math.isfinite(to_level) else "",
            ]
        )
    head = (
        "arm",
        "MFLOP a picture",
        "rate",
        "top-1 at the end, %",
        "by the whole text",
        f"pictures to {percent(level)} %" if math.isfinite(level) else "pictures to better than guessing",
        "TFLOP to it",
    )
    ratios = [
        [f"{each.slow} over {each.fast}", *map(each.shown, (each.pictures, each.work)), each.paper]
        for each in comparisons(arms)
    ]
    chance = percent(next(iter(arms.values()))[0]["chance"])
    words = next((job["vocabulary"] for jobs in arms.values() for job in jobs), 0)
    text = (
        f"## {condition[0].upper()}{condition[1:]}\n\nChance is {chance} %. The arms that predict know {words:,} "
        f"words.\n\n{markdown_table(head, rows)}"
    )
    if ratios:
        text += f"\n{markdown_table(('times more', 'pictures', 'work', 'in the paper, pictures'), ratios)}"
    return text


def plot(path: Path, jobs: Sequence[Job]) -> None:
    """Draw a column a condition: above over images, below over the work."""
    conditions = list(dict.fromkeys(job["condition"] for job in jobs))
    with plot_style():
        figure = Figure(figsize=(4.0 * len(conditions) + 0.6, 6.4), layout="constrained")
        axes = figure.subplots(2, len(conditions), squeeze=False, sharey="col")
        for column, condition in enumerate(conditions):
            arms = arms_of(jobs, condition)
            for row, unit in enumerate(("pictures seen", "TFLOP")):
                _draw(axes[row][column], arms, unit)
            axes[0][column].set_title(condition, fontsize=10)
        for row in axes:
            row[0].set_ylabel("zero-shot top-1, %")
        lines, names = axes[0][0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=2, fontsize=9)
        save_plot(figure, path, "Zero-shot accuracy by images seen and by work")


def _draw(axis: Axes, arms: Mapping[str, Sequence[Job]], unit: str) -> None:
    for arm, jobs in arms.items():
        shade, curves = colour(COLOURS[arm]), [curve_of(job) for job in jobs]
        factor = jobs[0]["flops"] / 1e12 if unit == "TFLOP" else 1
        x = [images * factor for images, _ in curves[0]]
        for curve in curves:
            axis.plot(x, [100 * accuracy for _, accuracy in curve], color=shade, alpha=0.25, linewidth=0.8)
        heights = zip(*([accuracy for _, accuracy in curve] for curve in curves), strict=True)
        axis.plot(x, [100 * fmean(each) for each in heights], color=shade, linewidth=2, label=arm)
    _mark(axis, "guessing", next(iter(arms.values()))[0]["chance"], ":", "right")
    if math.isfinite(level := compared_at(arms)):
        _mark(axis, "compared at", level, "--", "left")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(bottom=0)
    axis.set_xlabel(unit)


def _mark(axis: Axes, name: str, level: float, style: str, side: str) -> None:
    """Draw a thin line at an accuracy, with its name at one end."""
    axis.axhline(100 * level, color=colour("quiet"), linewidth=0.8, linestyle=style)
    place = (0.01 if side == "left" else 0.99, 100 * level)
    axes = ("axes fraction", "data")
    axis.annotate(name, place, (0, 2), axes, "offset points", ha=side, color=colour("quiet"), fontsize=7)


def write_page(folder: Path, jobs: Sequence[Job], size: Mapping[str, Any]) -> None:
    """Write figure2.md, figure2.svg and, for others to draw, figure2.json."""
    conditions = list(dict.fromkeys(job["condition"] for job in jobs))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "figure2.json", json.dumps(list(jobs), indent=1) + "\n")
    plot(folder / "figure2.svg", jobs)
    text = render_text(
        TEMPLATE,
        batch=size["batch"],
        samples=size["samples"],
        seeds=len(size["seeds"]),
        resolution=size["resolution"],
        width=size["width"],
        rates=", ".join(f"{rate:g}" for rate in size["rates"]),
        share=round(100 * SHARE),
        errors=ERRORS,
        outcomes="\n".join(outcome(condition, arms_of(jobs, condition)) for condition in conditions),
        sections="\n".join(section(condition, arms_of(jobs, condition)) for condition in conditions),
    )
    write_text(folder / "figure2.md", text)
