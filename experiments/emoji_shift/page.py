"""Write the page of the experiment from what `train.sh` and `measure.py` left.

python experiments/emoji_shift/page.py OUT docs/results/emoji_shift.md
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from diptych.evaluation.metrics import wilson
from diptych.evaluation.robustness.effective import Line, bootstrap, fit_line
from diptych.evaluation.robustness.robustness_table import Point
from diptych.reports.markdown import markdown_table
from diptych.reports.plots.robustness_plot import plot_robustness
from diptych.reports.render import render_text

PROBED = ("emoji groups", "Fashion-MNIST", "digits")
CLIP = (  # name, pairs seen, what it is
    ("diptych-mini", 1_749_760, "ResNet, width 32, blocks 2-2-2-2; all of the corpus"),
    ("clip-resnet-16", 299_776, "ResNet, width 16, blocks 2-2-2-2"),
    ("clip-resnet-16-quarter", 299_776, "the same on a quarter of the pairs"),
    ("clip-vit-128", 199_936, "ViT, patch 8, width 128, 6 blocks"),
    ("clip-resnet-8", 199_936, "ResNet, width 8, blocks 1-1-1-1"),
    ("clip-resnet-8-seed-1", 199_936, "the same, seed 1"),
    ("clip-resnet-8-seed-2", 199_936, "the same, seed 2"),
)
REFERENCE = "resnet-32"  # the supervised model whose features are probed


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def with_interval(report: dict[str, Any], metric: str = "top1") -> str:
    low, high = report["confidence"][metric]
    return f"{percent(report['metrics'][metric])} ({percent(low)} to {percent(high)})"


def standing(line: Line, within: float, shift: float, counts: tuple[int, int]) -> str:
    found = bootstrap(line, within, shift, counts)
    low, high = found.effective_interval
    return f"{100 * found.effective:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def robustness(baselines: list[dict[str, Any]], measured: dict[str, Any], plot: Path) -> str:
    counts = (baselines[0]["in_distribution"]["count"], baselines[0]["shift"]["count"])
    line = fit_line(
        [found["in_distribution"]["top1"] for found in baselines],
        [found["shift"]["top1"] for found in baselines],
        counts,
    )
    points, rows = [], []

    def add(name: str, group: str, within: float, shift: float, named: bool) -> None:
        rows.append((name, percent(within), percent(shift), standing(line, within, shift, counts)))
        points.append(
            Point(
                name=name,
                group=group,
                id_accuracy=within,
                shift_accuracy=shift,
                id_interval=wilson(within, counts[0]),
                shift_interval=wilson(shift, counts[1]),
                named=named,
            )
        )

    for found in sorted(baselines, key=lambda found: found["in_distribution"]["top1"]):
        add(
            found["model"],
            "trained on labels",
            found["in_distribution"]["top1"],
            found["shift"]["top1"],
            True,
        )
    for name, *_ in CLIP[1:]:
        within = measured[name]["zero-shot: emoji names in distribution"]["metrics"]["top1"]
        shift = measured[name]["zero-shot: emoji names"]["metrics"]["top1"]
        add(name, "zero-shot by names", within, shift, "seed" not in name)
    plot_robustness(
        points,
        line,
        plot,
        title="Emoji by designers that no model saw",
        subtitle="1,399 concepts; top-1 on held-out drawings of the training designers, and of three other styles",
        id_name="the training designers' held-out drawings, top-1",
        shift_name="unseen designers' drawings, top-1",
    )
    low, high = line.slope_interval
    fit = (
        f"Slope {line.slope:.2f} ({low:.2f} to {high:.2f}), r = {line.correlation:.3f}, {line.models} models."
    )
    head = ("model", "in distribution", "unseen designers", "effective robustness, points")
    return f"{fit}\n\n{markdown_table(head, rows)}"


def everything(measured: dict[str, Any]) -> str:
    head = ("model", "pairs seen", "emoji names (1,399)", *(f"{task}" for task in PROBED), "retrieval R@10")
    zero = [
        (
            name,
            f"{pairs:,}",
            with_interval(measured[name]["zero-shot: emoji names"]),
            *(with_interval(measured[name][f"zero-shot: {task}"]) for task in PROBED),
            with_interval(measured[name]["retrieval: Open Clip Art"], "text_to_image_r10"),
        )
        for name, pairs, _ in CLIP
    ]
    names = [*(name for name, *_ in CLIP), f"supervised-{REFERENCE}"]
    probe = [
        (name, *(with_interval(measured[name][f"linear-probe: {task}"]) for task in PROBED)) for name in names
    ]
    few = []
    for name in names:
        for task in PROBED:
            report = measured[name][f"few-shot: {task}"]
            few.append(
                (name, task, *(with_interval(report, f"top1_{shots}_shot") for shots in (1, 2, 4, 8, 16)))
            )
    return (
        f"### Zero-shot and retrieval\n\n{markdown_table(head, zero)}\n"
        f"### Linear probe\n\n{markdown_table(('features of', *PROBED), probe)}\n"
        f"### Few-shot\n\nMeans of three draws, with Student's interval over the draws.\n\n"
        f"{markdown_table(('features of', 'task', '1', '2', '4', '8', '16 a class'), few, 'llrrrrr')}"
    )


def vendors(measured: dict[str, Any], baselines: list[dict[str, Any]]) -> str:
    rows = []
    for name, *_ in CLIP:
        groups = measured[name]["zero-shot: emoji names"]["groups"]
        rows.append((name, *(percent(groups[vendor]["metrics"]["top1"]) for vendor in sorted(groups))))
    for found in baselines:
        rows.append(
            (
                f"supervised {found['model']}",
                *(percent(v) for _, v in sorted(found["shift"]["vendors"].items())),
            )
        )
    return markdown_table(("model", "fluent-3d", "fluent-flat", "fluent-hc"), rows)


def figure_5(measured: dict[str, Any], baselines: list[dict[str, Any]]) -> str:
    (reference,) = (found for found in baselines if found["model"] == REFERENCE)
    mini = measured["diptych-mini"]
    rows = [
        (
            "emoji names, unseen designers",
            percent(mini["zero-shot: emoji names"]["metrics"]["top1"]),
            f"{percent(reference['shift']['top1'])} (its own head)",
            f"{100 * (mini['zero-shot: emoji names']['metrics']['top1'] - reference['shift']['top1']):+.1f}",
        )
    ]
    for task in PROBED:
        zero = mini[f"zero-shot: {task}"]["metrics"]["top1"]
        probe = measured[f"supervised-{REFERENCE}"][f"linear-probe: {task}"]["metrics"]["top1"]
        rows.append((task, percent(zero), percent(probe), f"{100 * (zero - probe):+.1f}"))
    return markdown_table(
        ("data set", "zero-shot diptych-mini", "probe on the supervised ResNet", "difference"), rows
    )


def crossings(measured: dict[str, Any]) -> str:
    rows = []
    for name, *_ in CLIP:
        cells = []
        for task in PROBED:
            crossing = measured[name][f"few-shot: {task}"]["details"].get("crossing")
            cells.append(shown(crossing))
        rows.append((name, *cells))
    return markdown_table(("model", *PROBED), rows)


def shown(crossing: dict[str, Any] | None) -> str:
    if crossing is None:
        return "-"
    sign = {"equal": "", "at most": "at most ", "more than": "more than "}[crossing["relation"]]
    return f"{sign}{crossing['examples']:.1f}"


def ensembles(measured: dict[str, Any]) -> str:
    rows, seeds = [], []
    for name, *_ in CLIP:
        found = dict(measured[name]["prompts"])
        together = found.pop("ensemble")
        mean = statistics.mean(found.values())
        rows.append(
            (
                name,
                percent(together),
                percent(found["{}"]),
                percent(mean),
                f"{100 * (together - found['{}']):+.1f}",
            )
        )
        if name.startswith("clip-resnet-8"):
            seeds.append(100 * (together - found["{}"]))
    low, high = min(seeds), max(seeds)
    text = f"Over the three seeds of clip-resnet-8: {statistics.mean(seeds):+.2f} points ({low:+.2f} to {high:+.2f})."
    head = ("model", "five together", "the bare name", "mean of the five alone", "together less bare")
    return f"{markdown_table(head, rows)}\n{text}\n"


def main(out: Path, page: Path) -> None:
    measured = {file.stem: json.loads(file.read_text()) for file in (out / "measured").glob("*.json")}
    baselines = [json.loads(file.read_text()) for file in sorted((out / "supervised").glob("*/result.json"))]
    sizes = [
        (found["model"], f"{found['parameters']:,}", f"{found['drawings_seen']:,}") for found in baselines
    ]
    parts = {
        "robustness": robustness(baselines, measured, page.with_name("emoji_shift.svg")),
        "vendors": vendors(measured, baselines),
        "everything": everything(measured),
        "figure5": figure_5(measured, baselines),
        "crossings": crossings(measured),
        "ensembles": ensembles(measured),
        "variants": markdown_table(("model", "pairs seen", "what"), [(n, f"{p:,}", w) for n, p, w in CLIP]),
        "baselines": markdown_table(("supervised model", "parameters", "drawings seen"), sizes),
    }
    template = Path(__file__).with_name("page.md")
    page.write_text(render_text(template, **{name: text.rstrip() for name, text in parts.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
