"""A run of fine-tuning: the engine between a start and a product, and what was gained and lost."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from torch import Tensor, stack

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.data.subsets.split import Split
from diptych.errors import CheckpointError, DataError, SettingsError
from diptych.evaluation.comparison import Difference, compare
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.task_report import Report
from diptych.models.clip import CLIP
from diptych.pretrained import load
from diptych.runs.finetune_product import between, by_names, finished
from diptych.training.best import Best
from diptych.training.engine import NotFiniteError, Result, train
from diptych.training.feeding import open_examples, open_whole, split_of
from diptych.training.saving.layout import BEST, MODEL, START, TUNED
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import read_manifest, save_checkpoint

Reports = Mapping[str, Report]


class Measure(Protocol):
    """A model to the report of each task of the recipe, by its name; but for those in `skip`."""

    def __call__(self, model: CLIP, preprocess: Preprocess, *, skip: Collection[str] = ()) -> Reports: ...


_STATISTICS = 256  # training images by which batch norms learn the statistics of blended weights
_AT_ONCE = 64
OWN = ("held_out", "shift")  # beginnings of the names of tasks that are about the classes learned


@dataclass(frozen=True)
class Loss:
    """A task of which more was lost than the recipe allows. share: of what it was above chance."""

    task: str
    metric: str
    before: float
    after: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.metric} fell from {self.before:.1%} to {self.after:.1%}, {self.share:.0%} of what it "
            "was above chance; a lower learning rate, fewer steps or a smaller alpha keeps more"
        )


@dataclass(frozen=True)
class Finetuned:
    """What a run came to.

    alpha: of the result. step: whose weights it is made of; 0 where no step was better than the start. before: the
    tasks' reports of the model as it was loaded, asked by the names of the classes. start: those of what training
    begins with, which may have a probe. after: those of the result. curve: each alpha that was measured, with its
    reports. losses: from before to the result. result: of the engine. held_out: None where nothing is. classes: of the
    model's own classifier; empty after pairs.
    """

    method: str
    alpha: float
    step: int
    before: Reports
    start: Reports
    after: Reports
    curve: tuple[tuple[float, Reports], ...]
    losses: tuple[Loss, ...]
    result: Result
    held_out: Split | None
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures, without what became of each example."""
        return {
            "method": self.method,
            "alpha": self.alpha,
            "checkpoint": self.result.checkpoint,
            "step": self.step,
            "steps": self.result.step,
            "best": None if self.result.best is None else plain(self.result.best),
            "before": {name: report.to_json() for name, report in self.before.items()},
            "start": {name: report.to_json() for name, report in self.start.items()},
            "after": {name: report.to_json() for name, report in self.after.items()},
            "curve": [{"alpha": alpha, "metrics": metrics_of(reports)} for alpha, reports in self.curve],
            "lost": [plain(loss) for loss in self.losses],
            "held_out": None if self.held_out is None else self.held_out.to_json(),
        }


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    measure: Measure,
    resume: bool = False,
    device: str = "cpu",
    console: Console | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Finetuned:
    """Train a recipe that `prepare` made in `out`, and put the result into `out`/model; its end is in `out`/tuned.

    Every evaluation on the way measures what would be delivered then. say: gets the alarms, each once a task.

    Raises:
        NotFiniteError: the weights became useless; what the run started from, and its best so far, are as they were.
    """
    watch = _Watch(recipe, out, measure, device, say)
    settings = watch.settings
    result = train(
        recipe,
        out,
        resume=resume,
        device=device,
        evaluate=watch.evaluate if watch.before else None,
        console=console,
    )
    step = _best_step(result, watch.start_reports, recipe.optimizer.learning_rate, say)
    tuned = watch.start
    if step:
        tuned = watch.finished(
            load(str(out / (BEST if result.best is not None else MODEL)), device=device)[0]
        )
    curve = watch.curve(tuned) if step and watch.sweeps else ()
    alpha = best_alpha(curve) if step and settings.share == "best" else watch.alpha
    product = watch.between(tuned, alpha)
    after = dict(curve).get(alpha) or watch.measured(product)
    lost = tuple(losses(watch.before, after, settings.most_lost))
    found = Finetuned(
        method=settings.method,
        alpha=alpha,
        step=step,
        before=watch.before,
        start=watch.start_reports,
        after=after,
        curve=curve,
        losses=lost,
        result=result,
        held_out=split_of(recipe.data, open_whole(recipe.data)[0]) if recipe.data.validation else None,
        classes=() if watch.start.classifier is None else watch.start.classifier.classes,
    )
    _deliver(recipe, out, watch.preprocess, {TUNED: tuned, MODEL: product}, found)
    return found


class _Watch:
    """What would be delivered at any step, measured, beside the start.

    before: the reports of the model as it was loaded, against which losses are counted. start_reports: those of the
    start, which a step has to beat. alpha: of what is measured on the way. sweeps: whether further ones are measured at
    the end.
    """

    def __init__(
        self, recipe: Recipe, out: Path, measure: Measure, device: str, say: Callable[[str], None]
    ) -> None:
        assert recipe.finetune is not None
        self.settings = recipe.finetune
        self._recipe, self._out, self._measure, self._say = recipe, out, measure, say
        model, self.preprocess = load(str(out / START), device=device)
        self.start = self.finished(model)
        self.alpha = 0.5 if self.settings.share == "best" else self.settings.share
        self.sweeps = self.settings.method == "wise-ft" or self.settings.share == "best"
        blends = self.sweeps or self.alpha != 1
        self._images = statistics_images(recipe, self.preprocess) if blends else []
        self.start_reports = measure(self.start, self.preprocess)
        self.before = self._measured_by_names()
        if self.settings.share == "best" and not self.before:
            raise SettingsError(
                '[finetune] alpha = "best": nothing is measured; keep a part of the data with [data] validation, and '
                "add [[evaluation.tasks]]"
            )
        # Where neither tower learns, what words say of images stays what it was.
        self._known = (
            {name: report for name, report in self.before.items() if report.task != "labels"}
            if self.settings.method == "head"
            else {}
        )
        self._warned: set[str] = set()

    def _measured_by_names(self) -> Reports:
        """The reports of the model as it was loaded. Its towers are the start's: only another classifier differs."""
        if (
            self.start.classifier is None
            or self.settings.begins == "zero-shot"
            or self._recipe.objective.name != "classifier"
        ):
            return self.start_reports
        same = {name: report for name, report in self.start_reports.items() if report.task != "labels"}
        found = {**same, **self._measure(by_names(self.start, self.settings), self.preprocess, skip=same)}
        return {name: found[name] for name in self.start_reports}

    def finished(self, model: CLIP) -> CLIP:
        """See `product.finished`."""
        return finished(model, self.settings, by_words=self._recipe.objective.name != "classifier")

    def between(self, tuned: CLIP, alpha: float) -> CLIP:
        """See `product.between`."""
        return between(self.start, tuned, alpha, self._images)

    def measured(self, model: CLIP) -> Reports:
        """The report of each task."""
        found = {**self._known, **self._measure(model, self.preprocess, skip=self._known)}
        return {name: found[name] for name in self.before}

    def evaluate(self, model: CLIP, _: Preprocess) -> dict[str, float]:
        """What the engine's log gets of a model in training. Raises NotFiniteError where it cannot be measured."""
        try:
            reports = self.measured(self.between(self.finished(model), self.alpha))
        except CheckpointError as error:
            raise NotFiniteError(
                f"the fine-tuned model cannot be measured ({error}); lower optimizer.learning_rate, which is "
                f"{self._recipe.optimizer.learning_rate:g}; {self._out / START} and the best so far are as they were"
            ) from None
        for loss in losses(self.before, reports, self.settings.most_lost):
            if loss.task not in self._warned:
                self._say(f"alarm: {loss}")
                self._warned.add(loss.task)
        return metrics_of(reports)

    def curve(self, tuned: CLIP) -> tuple[tuple[float, Reports], ...]:
        """The reports at each alpha that the recipe names, and at that of the result."""
        alphas = sorted({*self.settings.alphas, self.alpha})
        return tuple((alpha, self.measured(self.between(tuned, alpha))) for alpha in alphas)


def _best_step(result: Result, at_start: Reports, learning_rate: float, say: Callable[[str], None]) -> int:
    """The step whose weights are delivered: the best by the recipe's metric, of which the start, step 0, is one."""
    best = result.best
    if best is None:
        return result.step
    start = Best(best.metric, 0, metrics_of(at_start)[best.metric])
    if best.beats(start):
        return best.step
    say(
        f"warning: no step is better than the start: {best.metric} was {start.value:.4g} there, and at best "
        f"{best.value:.4g}, after step {best.step:,}; the result is the start. A lower optimizer.learning_rate than "
        f"{learning_rate:g} may help, or more data"
    )
    return 0


def metrics_of(reports: Reports) -> dict[str, float]:
    """TASK_METRIC -> value, as the log of a run has it."""
    return {
        f"{task}_{metric}": value
        for task, report in reports.items()
        for metric, value in report.scores.metrics.items()
    }


def headline(report: Report) -> tuple[str, float]:
    """The metric that stands for a report, and its value; the mean of both directions of retrieval."""
    names = headlines(report)
    values = [report.scores.metrics[name] for name in names]
    return names[0] if len(names) == 1 else "mean_r1", sum(values) / len(values)


def paired_difference(task: str, before: Report, after: Report) -> Difference | None:
    """Return the paired difference in the metric that stands for a task.

    None where that is not a mean over examples, and for retrieval, whose two directions have different examples.
    """
    wanted = headlines(before)
    differences = compare(task, before, after).differences if len(wanted) == 1 else ()
    return next((one for one in differences if one.metric == wanted[0]), None)


def losses(before: Reports, after: Reports, most: float) -> list[Loss]:
    """The tasks that lost more than the share `most` of what they were above chance before.

    What was within its own interval of chance, or has fallen by less than the width of that interval, says nothing.
    """
    found = []
    for task, report in before.items():
        metric, old = headline(report)
        new = headline(after[task])[1]
        chance = report.scores.chance.get(metric, 0.0)
        low, high = report.scores.confidence.get(metric, (old, old))
        gained = old - chance
        if low > chance and old - new > (high - low) / 2 and gained > 0 and (old - new) / gained > most:
            found.append(Loss(task, metric, old, new, (old - new) / gained))
    return found


def best_alpha(curve: Sequence[tuple[float, Reports]]) -> float:
    """The alpha with the highest mean of what was learned and what was kept; the smallest of equal ones.

    What was learned is the mean of the tasks on the classes of the data, what was kept that of all others. Where
    there is only one of the two, that decides.
    """
    return max(curve, key=lambda point: (_balance(point[1]), -point[0]))[0]


def _balance(reports: Reports) -> float:
    kinds: dict[bool, list[float]] = {}
    for task, report in reports.items():
        kinds.setdefault(task.startswith(OWN), []).append(headline(report)[1])
    means = [math.fsum(values) / len(values) for values in kinds.values()]
    return math.fsum(means) / len(means)


def statistics_images(recipe: Recipe, preprocess: Preprocess) -> list[Tensor]:
    """Some of the training images, as they look in use, for `between`; those that cannot be read are passed over."""
    source, weights = open_examples(recipe.data)
    seen = np.flatnonzero(weights)
    pixels = []
    for position in seen[np.random.default_rng(recipe.training.seed).permutation(len(seen))][:_STATISTICS]:
        try:
            pixels.append(preprocess(source[int(position)].image))
        except DataError:
            continue
    return [stack(pixels[first : first + _AT_ONCE]) for first in range(0, len(pixels), _AT_ONCE)]


def _deliver(
    recipe: Recipe, out: Path, preprocess: Preprocess, models: Mapping[str, CLIP], found: Finetuned
) -> None:
    """Write the product, and the end beside it where it is another model."""
    origin = read_manifest(out / START).history
    entry = {
        "what": "fine-tuned",
        "from": origin[-1]["from"],
        "method": found.method,
        "alpha": found.alpha,
        "steps": found.step,
    }
    for name, model in models.items():
        if name == MODEL or found.alpha != 1:
            said = entry if name == MODEL else {**entry, "alpha": 1.0}
            save_checkpoint(
                out / name, model, plain(preprocess), settings=plain(recipe), history=[*origin, said]
            )
