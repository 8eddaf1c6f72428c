"""CLIP's Figure 2, in small: who learns fastest to recognise classes by their words?

    python experiments/figure2.py --out build/figure2 [--corpus DIR] [--workers 2]

Four arms see the same pictures in the same order with the same image tower and budget: a language model of the
captions, a bag of their words predicted, the same bag compared, and CLIP. Each arm's learning rate is chosen on other
test pictures than those that are reported. Without `--corpus` the scenes alone are measured. A job that is done is not
done again. Writes docs/results/figure2.md, .svg and .json (or into `--page`). `--quick` takes seconds, for tests.
"""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from figure2_arms import ARMS, CONDITIONS, FULL, QUICK, Condition, Size, condition_of, recipe_of
from figure2_page import write_page
from jobs import Result, do_all, keep_result, options, read_result
from torch.utils.flop_counter import FlopCounterMode

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.engine import train
from diptych.training.feeding import open_training_data
from diptych.training.settings import Recipe
from diptych.training.step import training_step


def looked_at(steps: int, points: int) -> list[int]:
    """The steps of a curve's points, each a constant factor after the one before; the last step is the last."""
    first = max(1, steps // 64)
    return sorted({round(first * (steps / first) ** (at / (points - 1))) for at in range(points)})


def curve(recipe: Recipe, condition: Condition, test: Source, points: int, folder: Path) -> Result:
    """Accuracy after each number of pictures, by the mean token and by the whole text where a model predicts texts."""
    due = set(looked_at(recipe.training.total_steps, points))
    found: list[dict[str, float]] = []
    step = 0

    def evaluate(model: ImageModel, preprocess: Preprocess) -> dict[str, float]:
        nonlocal step
        step += 1
        if step in due:
            report = evaluate_zero_shot(
                model, preprocess, test, model_name="arm", labels=condition.labels, batch_size=256
            )
            point = {"images": step * recipe.training.batch_size, "top1": report.scores.metrics["top1"]}
            if "top1_whole_text" in report.details:
                point["top1_whole_text"] = report.details["top1_whole_text"]
            found.append(point)
        return {}

    train(recipe, folder, evaluate=evaluate)
    return {"curve": found, "chance": 1 / len(condition.labels.names), "tested": len(test)}


def flops(recipe: Recipe) -> float:
    """Floating-point operations of a training step, forward and backward, for each picture."""
    torch.manual_seed(0)
    model = build_model(recipe.model.resolve()).train()
    preprocess = Preprocess(model.architecture.image.resolution)
    task = recipe.make_task(model, preprocess)
    batch = next(open_training_data(recipe, model, preprocess, lambda _: None).batches(0))
    with FlopCounterMode(display=False) as counter:
        training_step(
            task, torch.optim.SGD(model.parameters(), lr=0.0), batch, 0.0, None, group_positives=False
        )
    flops: int = counter.get_total_flops()
    return flops / recipe.training.batch_size


def file_name(*parts: object) -> str:
    """The parts with what no file name should have replaced."""
    return "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in parts)


def main() -> None:
    parser = options("figure2", __doc__)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    names: tuple[str, ...] = CONDITIONS if given.corpus else CONDITIONS[:2]
    if given.quick:
        names = names[:1] + names[2:]
    experiment = Experiment(size, names, given.corpus, given.out)
    if given.job:
        settings = experiment.settings_of(given.job)
        keep_result(given.out, given.job, settings, experiment.run(given.job))
        return
    arguments = ["--out", str(given.out), *(["--quick"] if given.quick else [])]
    arguments += ["--corpus", str(given.corpus)] if given.corpus else []

    def done(jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return do_all(
            Path(__file__), given.out, jobs, experiment.run, workers=given.workers, arguments=arguments
        )

    done(experiment.tuning)
    curves = done(experiment.jobs)
    write_page(
        given.page, [{**experiment.jobs[name], **result} for name, result in curves.items()], asdict(size)
    )


class Experiment:
    """Every job with its settings: first those that try learning rates, then those that are reported."""

    def __init__(self, size: Size, conditions: Sequence[str], corpus: Path | None, out: Path) -> None:
        self._size, self._corpus, self._out = size, corpus, out
        self._conditions = tuple(conditions)
        self._read: dict[str, Condition] = {}
        self.tuning = {
            file_name("tune", condition, arm, rate): self._settings(condition, arm, rate, 1000, size.tuning)
            for condition in conditions
            for arm in ARMS
            for rate in size.rates
            if len(size.rates) > 1
        }

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Those that are reported, at the rates that the others chose."""
        return {
            file_name("run", condition, arm, seed): self._settings(
                condition, arm, self._best_rate(condition, arm), seed, self._size.samples
            )
            for seed in self._size.seeds
            for condition in self._conditions
            for arm in ARMS
        }

    def settings_of(self, name: str) -> dict[str, Any]:
        return self.tuning[name] if name in self.tuning else self.jobs[name]

    def run(self, name: str) -> Result:
        settings = self.settings_of(name)
        size, where = self._size, settings["condition"]
        if where not in self._read:
            self._read[where] = condition_of(where, size, self._corpus, self._out)
        condition = self._read[where]
        arm = settings["arm"]
        recipe = recipe_of(
            arm, condition, size, samples=settings["samples"], rate=settings["rate"], seed=settings["seed"]
        )
        tuned = name in self.tuning
        folder = self._out / "runs" / name
        remove(folder)
        points = 2 if tuned else size.points
        result = curve(recipe, condition, condition.tune if tuned else condition.test, points, folder)
        remove(folder)
        return result if tuned else {**result, "flops": flops(recipe), "vocabulary": len(condition.known)}

    def _settings(self, condition: str, arm: str, rate: float, seed: int, samples: int) -> dict[str, Any]:
        size = {name: value for name, value in asdict(self._size).items() if name not in ("seeds", "rates")}
        return {
            "condition": condition,
            "arm": arm,
            "rate": rate,
            "seed": seed,
            "samples": samples,
            "size": size,
        }

    def _best_rate(self, condition: str, arm: str) -> float:
        """The rate that was best; where all did alike, having learned nothing yet, the best of the first condition."""
        if not self.tuning:
            return self._size.rates[0]
        found = {}
        for rate in self._size.rates:
            name = file_name("tune", condition, arm, rate)
            result = read_result(self._out, name, self.tuning[name])
            found[rate] = -math.inf if result is None else result["curve"][-1]["top1"]
        first = self._conditions[0]
        if condition != first and len(set(found.values())) == 1:
            return self._best_rate(first, arm)
        return max(found, key=found.__getitem__)


def remove(folder: Path) -> None:
    """What a job that was stopped, or is done, left of its run."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
