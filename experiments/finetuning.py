"""Fine-tuning diptych-mini in every way on three sets: what is gained, and what is lost elsewhere.

    python experiments/finetuning.py --out build/finetuning --corpus DIR [--workers 1]

About an hour of one core. DIPTYCH_DATA has Fashion-MNIST, DIR is the starter corpus. Three seeds of `full`, of the
weights between its two ends (WiSE-FT) and of `lp-ft`, one of each other method. A job that is done is not done again.
Writes docs/results/finetuning.md, .svg and .json (or into `--page`). `--quick` takes seconds, for tests.
"""

import contextlib
import io
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from finetuning_page import write_page
from finetuning_sets import FULL, QUICK, Set, Size, build_sets
from jobs import Result, do_all, keep_result, options
from torch import stack

from diptych.cli.__main__ import main as diptych
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.evaluation.task_report import Report
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.own_classes import evaluate_own_classes
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.runs.finetune_product import between

MODEL = "diptych-mini"
START = "start"  # the control: the model as it is, by words
PROBE = "probe"  # the control of lp-ft: what it begins with
SEVERAL_SEEDS = ("full", "lp-ft")
ONCE = ("head", "flyp", "lit", "contrastive", "lora")
COUPLED = ("flyp", "lit", "contrastive")  # learn from the other pairs of a batch
STATISTICS = 256  # training pictures by which batch norms learn the statistics of blended weights


def jobs_of(sets: Mapping[str, Set], size: Size) -> dict[str, dict[str, Any]]:
    """What distinguishes each job, by its name; the first seed of all comes first."""
    found: dict[str, dict[str, Any]] = {}
    for seed in range(size.seeds):
        for name, one in sets.items():
            methods = (START, PROBE, *SEVERAL_SEEDS, *ONCE) if seed == 0 else SEVERAL_SEEDS
            for method in methods:
                # Where nobody wrote captions there are the names of the classes alone: that is `flyp`.
                if method != "contrastive" or one.captions is not None:
                    values = {"set": name, "method": method, "seed": seed, "size": asdict(size)}
                    found[f"{name}-{method}-{seed}"] = values
    return found


def run(folder: Path, one: Set, method: str, seed: int, size: Size) -> Result:
    """One job: what is measured, by the name of the data, and of `full` also at each alpha between its ends."""
    began = time.process_time()
    if method == START:
        model, preprocess = load(MODEL, device="cpu")
        return {"measured": measured(model, preprocess, one)}
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was stopped
    if method == PROBE:
        fine_tune(folder, one, "lp-ft", seed, views=32)  # one step, of which nothing is used
        probe = measured(*load(str(folder / "start"), device="cpu"), one)
        shutil.rmtree(folder)
        return {"measured": probe}
    step = fine_tune(folder, one, method, seed, size.views)
    tuned, preprocess = load(str(folder / "model"), device="cpu")
    result: Result = {"measured": measured(tuned, preprocess, one), "step": step}
    if method == "full":
        start = load(str(folder / "start"), device="cpu")[0]
        source = open_source(one.train)
        every = max(1, len(source) // STATISTICS)
        pictures = [preprocess(source[row].image) for row in range(0, len(source), every)]
        batches = [stack(pictures[first : first + 64]) for first in range(0, len(pictures), 64)]
        result["between"] = [
            {"alpha": alpha, **measured(between(start, tuned, alpha, batches), preprocess, one)}
            for alpha in size.alphas
        ]
    shutil.rmtree(folder)
    return {**result, "seconds": time.process_time() - began}


def fine_tune(folder: Path, one: Set, method: str, seed: int, views: int) -> int:
    """`diptych finetune` at its own settings but for the length; returns the step that its held-out part chose."""
    data = one.captions if method == "contrastive" else one.train
    batch = 64 if method in COUPLED else 32
    steps = views // batch
    settings = {
        "training.batch_size": batch,
        "training.steps": steps,
        "schedule.warmup_steps": steps // 10,
        "evaluation.every_steps": -(-steps // 4),
    }
    assigned = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = diptych(
            [
                "finetune", str(data), "--out", str(folder), "--model", MODEL, "--method", method,
                "--seed", str(seed), "--keep", "none", "--device", "cpu", "--json", *assigned,
            ]
        )  # fmt: skip
    if code:
        raise SystemExit(f"{folder.name}: diptych finetune ended with {code}; see above")
    return int(json.loads(told.getvalue())["step"])


def measured(model: ImageModel, preprocess: Preprocess, one: Set) -> dict[str, dict[str, Any]]:
    """On the test part, on the shift, and on the tasks that were not trained on, these by words."""
    classes = LabelSet.of(sorted(folder.name for folder in one.test.iterdir()))
    found = {}
    for name, place in (("test", one.test), ("shift", one.shift)):
        if place is not None:
            found[name] = figures(
                evaluate_own_classes(model, preprocess, open_source(place), model_name=MODEL)
                if model.classifier is not None
                else evaluate_zero_shot(
                    model, preprocess, open_source(place), model_name=MODEL, labels=classes
                )
            )
    for name, task in one.others.items():
        source = open_source(task)
        label_from: Literal["label", "caption"] = "caption" if task.startswith("sample:") else "label"
        found[name] = figures(
            evaluate_zero_shot(model, preprocess, source, model_name=MODEL, label_from=label_from)
        )
    return found


def figures(report: Report) -> dict[str, Any]:
    """Top-1 of all, and of the two halves that every second picture makes: one to choose by, one to judge by."""
    assert report.outcomes is not None
    right = report.outcomes.scores["top1"]
    return {
        "count": len(right),
        "top1": float(right.mean()),
        "halves": [float(right[half::2].mean()) for half in (0, 1)],
        "chance": report.scores.chance["top1"],
    }


def main() -> None:
    parser = options("finetuning", __doc__, workers=1)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    if (given.corpus is None) != given.quick:
        parser.error(
            "give --corpus, the folder of the starter corpus, or --quick, which uses the bundled sample"
        )
    size = QUICK if given.quick else FULL
    sets = build_sets(given.out / "data", given.corpus, size)
    jobs = jobs_of(sets, size)

    def run_job(job: str) -> Result:
        asked = jobs[job]
        return run(given.out / "runs" / job, sets[asked["set"]], asked["method"], asked["seed"], size)

    if given.job:
        keep_result(given.out, given.job, jobs[given.job], run_job(given.job))
        return
    arguments = ["--out", str(given.out), *(["--quick"] if given.quick else ["--corpus", str(given.corpus)])]
    found = do_all(Path(__file__), given.out, jobs, run_job, workers=given.workers, arguments=arguments)
    write_page(given.page, [{**jobs[name], **result} for name, result in found.items()])


if __name__ == "__main__":
    main()
