"""The page of `figure2.py`: its plot, its table, and how many times fewer pictures an arm needs than another."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from diptych.atomic import atomic_write, write_text
from diptych.evaluation.robustness.student_t import margin

Job = Mapping[str, Any]
Curve = Sequence[tuple[float, float]]  # (pictures, accuracy), by pictures

COLOURS = {
    "language model": "#8a8f98",
    "bag of words, predicted": "#c9772b",
    "bag of words, contrastive": "#2f7d4f",
    "CLIP": "#2456a6",
}
QUIET = "#6b7078"
# Pairs of the paper's claim: the second arm needs so many times fewer pictures than the first.
CLAIMS = (
    ("language model", "bag of words, predicted", "3"),
    ("bag of words, predicted", "bag of words, contrastive", "4"),
    ("language model", "bag of words, contrastive", "12"),
    ("bag of words, contrastive", "CLIP", "-"),
)
# The paper's order, fewest pictures first; where it has CLIP among them it does not say.
PAPER = ("bag of words, contrastive", "bag of words, predicted", "language model")
# Fixed before the runs: the accuracy at which arms are compared, as the share of the way from chance to the accuracy
# that the slowest arm ends with. So every arm reaches it, and nobody chose it by its result.
SHARE = 0.8
# An arm takes part if every seed of it is above guessing by so many standard errors of guessing.
ERRORS = 4


def images_to_reach(curve: Curve, accuracy: float) -> float:
    """Pictures after which a curve first has that accuracy, between points on a logarithmic scale; inf if never."""
    before: tuple[float, float] | None = None
    for images, found in curve:
        if found >= accuracy:
            if before is None or found == before[1]:
                return images
            share = (accuracy - before[1]) / (found - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(images) - math.log(before[0])))
        before = images, found
    return math.inf


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """How many times more pictures the slow arm needs, and Student's 95 % interval over seeds, in logarithms."""
    logs = [math.log(a / b) for a, b in zip(slow, fast, strict=True)]
    middle, half = fmean(logs), margin(logs)
    return math.exp(middle), math.exp(middle - half), math.exp(min(middle + half, 700))


def curve_of(job: Job, metric: str = "top1") -> Curve:
    return [(point["images"], point.get(metric, point["top1"])) for point in job["curve"]]


def arms_of(jobs: Sequence[Job], condition: str) -> dict[str, list[Job]]:
    """The jobs of a condition by arm, each by seed."""
    found: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job["seed"]):
        if job["condition"] == condition:
            found.setdefault(job["arm"], []).append(job)
    return {arm: found[arm] for arm in COLOURS if arm in found}


def best(job: Job) -> float:
    return max(accuracy for _, accuracy in curve_of(job))


def learned(arms: Mapping[str, Sequence[Job]]) -> list[str]:
    """The arms that ever did better than guessing does by luck, with every seed."""

    def above(job: Job) -> bool:
        chance = job["chance"]
        return best(job) > chance + ERRORS * math.sqrt(chance * (1 - chance) / job["tested"])

    return [arm for arm, jobs in arms.items() if all(map(above, jobs))]


def compared_at(arms: Mapping[str, Sequence[Job]]) -> float:
    """The accuracy at which the arms of a condition are compared; inf where none has learned anything."""
    chance = next(iter(arms.values()))[0]["chance"]
    slowest = min((best(job) for arm in learned(arms) for job in arms[arm]), default=math.inf)
    return float(chance + SHARE * (slowest - chance))


def reached(arms: Mapping[str, Sequence[Job]]) -> dict[str, list[float]]:
    """The pictures after which each seed of each arm has the accuracy at which they are compared, or inf."""
    level, able = compared_at(arms), learned(arms)
    return {
        arm: [images_to_reach(curve_of(job), level) if arm in able else math.inf for job in jobs]
        for arm, jobs in arms.items()
    }


@dataclass(frozen=True)
class Comparison:
    """How many times more the slow arm needs than the fast one, and what the paper found.

    pictures, work: the ratio and its interval. never: the slow arm did not arrive; what it saw stands for its need.
    """

    slow: str
    fast: str
    paper: str
    pictures: tuple[float, float, float]
    work: tuple[float, float, float]
    never: bool

    def shown(self, found: tuple[float, float, float]) -> str:
        middle, low, high = found
        return f"more than {low:.1f}" if self.never else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def comparisons(arms: Mapping[str, Sequence[Job]]) -> list[Comparison]:
    """The pairs of the paper's claim whose fast arm arrived."""
    needed = reached(arms)
    found = []
    for slow, fast, paper in CLAIMS:
        if slow not in arms or fast not in arms or math.inf in needed[fast]:
            continue
        never = math.inf in needed[slow]
        pictures = [[curve_of(job)[-1][0] for job in arms[slow]] if never else needed[slow], needed[fast]]
        work = [
            [images * job["flops"] for images, job in zip(each, arms[arm], strict=True)]
            for arm, each in zip((slow, fast), pictures, strict=True)
        ]
        found.append(Comparison(slow, fast, paper, ratio(*pictures), ratio(*work), never))
    return found


def outcome(condition: str, arms: Mapping[str, Sequence[Job]]) -> str:
    """The arms by the pictures that they need, whether that is the paper's order, and what is beyond doubt of it."""
    if not learned(arms):
        return f"- {condition}: no arm came to do better than guessing."
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


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
        f"words.\n\n{table(head, rows)}"
    )
    if ratios:
        text += f"\n{table(('times more', 'pictures', 'work', 'in the paper, pictures'), ratios)}"
    return text


def plot(path: Path, jobs: Sequence[Job]) -> None:
    """A column a condition; above against pictures, below against the work."""
    conditions = list(dict.fromkeys(job["condition"] for job in jobs))
    with mpl.rc_context({"svg.hashsalt": "diptych", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.0 * len(conditions) + 0.6, 6.4), layout="constrained")
        axes = figure.subplots(2, len(conditions), squeeze=False, sharey="col")
        for column, condition in enumerate(conditions):
            arms = arms_of(jobs, condition)
            for row, unit in enumerate(("pictures seen", "TFLOP")):
                axis = axes[row][column]
                for arm, of_arm in arms.items():
                    points = [curve_of(job) for job in of_arm]
                    factor = of_arm[0]["flops"] / 1e12 if row else 1
                    x = [images * factor for images, _ in points[0]]
                    heights = zip(*([accuracy for _, accuracy in each] for each in points), strict=True)
                    y = [100 * fmean(accuracies) for accuracies in heights]
                    for each in points:
                        axis.plot(
                            x, [100 * a for _, a in each], color=COLOURS[arm], alpha=0.25, linewidth=0.8
                        )
                    axis.plot(x, y, color=COLOURS[arm], linewidth=2, label=arm)
                _mark(axis, "guessing", next(iter(arms.values()))[0]["chance"], ":", "right")
                if math.isfinite(level := compared_at(arms)):
                    _mark(axis, "compared at", level, "--", "left")
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.set_ylim(bottom=0)
                axis.set_xlabel(unit)
                axis.grid(color="#ece9e3")
                axis.spines[["top", "right"]].set_visible(False)
            axes[0][column].set_title(condition, fontsize=10)
        for row in axes:
            row[0].set_ylabel("zero-shot top-1, %")
        lines, names = axes[0][0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        FigureCanvasSVG(figure)
        with atomic_write(path) as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _mark(axis: Axes, name: str, level: float, style: str, side: str) -> None:
    """A thin line at an accuracy, with its name at one end."""
    axis.axhline(100 * level, color=QUIET, linewidth=0.8, linestyle=style)
    place = (0.01 if side == "left" else 0.99, 100 * level)
    axes = ("axes fraction", "data")
    axis.annotate(name, place, (0, 2), axes, "offset points", ha=side, color=QUIET, fontsize=7)


PAGE = """\
# CLIP's Figure 2 in small: which objective learns zero-shot classification fastest?

Written by `experiments/figure2.py`; a {batch}-picture batch, {samples:,} pictures a run, {seeds} seeds.

The paper (section 2.3) found that a model which predicts a bag of a caption's words learns ImageNet's classes 3 times
faster than a language model of the captions, and that comparing the same bag with pictures is 4 times faster again. It
publishes neither the losses of the first two arms, nor their batch, nor how they were asked for a class.

Measured here, the arm that needs the fewest pictures first, and which of the paper's pairs are apart beyond doubt:

{outcomes}

![Accuracy by pictures seen and by work](figure2.svg)

What is ours:

- All arms have one image tower, a ResNet of {resolution} pixels and width {width}, and see the same pictures in the
  same order; AdamW at a constant rate after 30 steps, chosen for each arm among {rates} on other test pictures.
- The language model is one decoder block over the image's cells, from left to right. Its class is the one whose text is
  the likeliest by the mean over its tokens; by the whole text is given beside.
- The predicted bag of words is a softmax over the vocabulary, whose target is uniform over the caption's distinct
  words. Its class has the largest mean of its words' log p.
- The contrastive bag of words is the mean of the words' embeddings; CLIP has a transformer of 3 layers. Both classify
  by cosine.
- The arms that predict know the words that occur in the captions (among emoji: five times or more), not all 49,408 of
  the tokenizer. That makes their steps cheaper than they were in the paper, and counts in the column of work.
- Work is counted by PyTorch over a whole training step. Thin lines are seeds; ratios have Student's 95 % interval over
  seeds, in logarithms. Arms are compared where each has made {share} % of the way from chance to the end of the
  slowest run. An arm of which a seed never was above guessing by {errors} standard errors does not count there; of it,
  "more than" is the lower end of the interval as if it had arrived with its last picture. Both were fixed before the
  runs that are reported.
- Where none of its rates had taught an arm anything yet when they were tried, it has the one of the first condition.

{sections}"""


def write_page(folder: Path, jobs: Sequence[Job], size: Mapping[str, Any]) -> None:
    """figure2.md, figure2.svg and, for others to draw, figure2.json."""
    conditions = list(dict.fromkeys(job["condition"] for job in jobs))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "figure2.json", json.dumps(list(jobs), indent=1) + "\n")
    plot(folder / "figure2.svg", jobs)
    text = PAGE.format(
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
