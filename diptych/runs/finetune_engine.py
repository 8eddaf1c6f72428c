"""Run the engine between a start and a product of fine-tuning, and measure what would be delivered."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Tensor, stack

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import all_left_out
from diptych.errors import CheckpointError, DataError, NotFiniteError, SettingsError
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.runs.finetune_figures import (
    HELD_OUT_TASK,
    FinetuneResult,
    Measure,
    Reports,
    best_alpha,
    losses,
    metrics_of,
)
from diptych.runs.finetune_product import between, by_names, finished
from diptych.training.best import Best
from diptych.training.engine import Result, train
from diptych.training.feeding import open_examples, open_whole, split_of
from diptych.training.saving.layout import BEST, MODEL, START, TUNED
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import read_manifest, save_checkpoint

_STATISTICS = 256  # training images by which batch norms learn the statistics of blended weights
_AT_ONCE = 64


def run_prepared(
    recipe: Recipe,
    out: Path,
    *,
    measure: Measure,
    resume: bool = False,
    device: str = "cpu",
    console: Console | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FinetuneResult:
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
    found = FinetuneResult(
        recipe=recipe,
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
        left_out=all_left_out(
            [
                result.left_out,
                *(report.skipped for task, report in watch.before.items() if task == HELD_OUT_TASK),
            ]
        ),
    )
    _deliver(recipe, out, watch.preprocess, {TUNED: tuned, MODEL: product}, found)
    return found


class _Watch:
    """Measure what would be delivered at any step, and the start beside it.

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
        """Measure the model as it was loaded. Its towers are the start's; only the classifier differs."""
        if (
            self.start.classifier is None
            or self.settings.begins == "zero-shot"
            or not self._recipe.approach.trains_classifier
        ):
            return self.start_reports
        same = {name: report for name, report in self.start_reports.items() if report.task != "labels"}
        found = {**same, **self._measure(by_names(self.start, self.settings), self.preprocess, skip=same)}
        return {name: found[name] for name in self.start_reports}

    def finished(self, model: ImageModel) -> ImageModel:
        """Return a finished copy; see `finetune_product.finished`."""
        return finished(model, self.settings, by_words=not self._recipe.approach.trains_classifier)

    def between(self, tuned: ImageModel, alpha: float) -> ImageModel:
        """Return the model at `alpha`; see `finetune_product.between`."""
        return between(self.start, tuned, alpha, self._images)

    def measured(self, model: ImageModel) -> Reports:
        """Return the report of each task."""
        found = {**self._known, **self._measure(model, self.preprocess, skip=self._known)}
        return {name: found[name] for name in self.before}

    def evaluate(self, model: ImageModel, _: Preprocess) -> dict[str, float]:
        """Return what the engine logs of a model in training. Raises NotFiniteError if it cannot be measured."""
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

    def curve(self, tuned: ImageModel) -> tuple[tuple[float, Reports], ...]:
        """Return the reports at each alpha that the recipe names, and at that of the result."""
        alphas = sorted({*self.settings.alphas, self.alpha})
        return tuple((alpha, self.measured(self.between(tuned, alpha))) for alpha in alphas)


def _best_step(result: Result, at_start: Reports, learning_rate: float, say: Callable[[str], None]) -> int:
    """Return the step with the best value of the recipe's metric, whose weights are delivered; the start is step 0."""
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


def statistics_images(recipe: Recipe, preprocess: Preprocess) -> list[Tensor]:
    """Return some training images as the model sees them in use, for `between`; unreadable ones are skipped."""
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
    recipe: Recipe, out: Path, preprocess: Preprocess, models: Mapping[str, ImageModel], found: FinetuneResult
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
