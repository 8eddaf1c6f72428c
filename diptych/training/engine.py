"""The training loop.

A run lies in one folder:

    recipe.json                what was asked for, resolved
    metrics.jsonl              one line every few steps
    tensorboard/               the same, where TensorBoard is installed
    checkpoints/step-00000500  to resume from
    model/                     the result

A run starts from its own newest whole checkpoint when it is resumed, else from `[model] init`, else from scratch.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from diptych.atomic import write_text
from diptych.config import plain
from diptych.data.canvas import canvas_for
from diptych.data.loader import Loader, example_weights
from diptych.data.permuted import PermutedCaptions
from diptych.data.sources import open_source
from diptych.data.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.clip import CLIP, build_model
from diptych.tokenizer import tokenize
from diptych.training.interrupt import on_interrupt
from diptych.training.monitor import Monitor
from diptych.training.optimizer import build_optimizer
from diptych.training.schedule import learning_rate
from diptych.training.settings import Recipe
from diptych.training.state import (
    checkpoint_folder,
    checkpoints,
    keep_newest,
    newest_whole,
    optimizer_state,
    restore_optimizer,
)
from diptych.training.step import StepResult, training_step
from diptych.training.tasks import TASKS, Task
from diptych.weights.checkpoint import load_checkpoint, load_state, save_checkpoint

Evaluate = Callable[[CLIP, Preprocess], Mapping[str, float]]

_LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Result:
    """What a run came to. loss: of the last step; samples_per_second: of this process's part of the run."""

    step: int
    samples: int
    loss: float
    samples_per_second: float
    checkpoint: str


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    evaluate: Evaluate | None = None,
    console: Console | None = None,
) -> Result:
    """Train as `recipe` says and write the run into the folder `out`.

    evaluate: called at the steps that `[evaluation]` names and after the last one, with the model in evaluation
        mode; what it returns goes into the log.
    Raises SettingsError where `out` holds a run already and `resume` is not given; a stopped run goes on from its
    newest whole checkpoint and gives the weights that it would have given without the stop (same machine, threads
    and versions). Ctrl-C ends the step, saves, and raises KeyboardInterrupt.
    """
    run = Path(out)
    _prepare(run, recipe, resume)
    engine = _Engine(recipe, run, torch.device(device), evaluate, console or Console(stderr=True))
    if resume:
        engine.restore()
    return engine.run()


class _Engine:
    def __init__(
        self, recipe: Recipe, run: Path, device: torch.device, evaluate: Evaluate | None, console: Console
    ) -> None:
        self.recipe = recipe
        self.folder = run
        self.evaluate = evaluate
        self.console = console
        self.device = device
        torch.manual_seed(recipe.training.seed)
        self.model, self.preprocess = _starting_model(recipe)
        self.model.to(device).train()
        self.model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task: Task = TASKS[recipe.objective.name](self.model, self.preprocess, recipe)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan

    def restore(self) -> None:
        """Go back to the newest whole checkpoint of the run, if there is one."""
        newest, damaged = newest_whole(self.folder)
        for folder in damaged:
            self.console.print(
                f"{folder}: damaged; falling back to an earlier checkpoint",
                markup=False,
                emoji=False,
                highlight=False,
            )
        if newest is None:
            if damaged:
                raise CheckpointError(f"{self.folder}: none of its {len(damaged)} checkpoints is whole")
            return
        model, _, _ = load_checkpoint(newest)
        self.model.load_state_dict(model.state_dict())
        tensors, values = load_state(newest)
        restore_optimizer(self.model, self.optimizer, tensors)
        self.step, self.seconds, self.loss = (
            int(values["step"]),
            float(values["seconds"]),
            float(values["loss"]),
        )
        if values["threads"] != torch.get_num_threads():
            self.console.print(
                f"this run had {values['threads']} threads and now has {torch.get_num_threads()}: it goes on, but "
                "not to the last bit as it would have",
                markup=False,
                emoji=False,
                highlight=False,
            )

    def run(self) -> Result:
        recipe, total = self.recipe, self.recipe.training.total_steps
        loader = self._loader()
        started, first = time.perf_counter(), self.step
        before = self.seconds
        last_save = started
        chance = math.log(recipe.training.batch_size)
        with on_interrupt() as stop, Monitor(self.folder, total, self.step, chance, self.console) as monitor:
            batches = loader.batches(self.step * recipe.training.batch_size)
            while self.step < total and not stop.made:
                rate = learning_rate(self.step, total, recipe.optimizer.learning_rate, recipe.schedule)
                result = training_step(
                    self.task,
                    self.optimizer,
                    next(batches),
                    rate,
                    recipe.optimizer.clip_norm,
                    group_positives=recipe.objective.positives == "caption",
                )
                self.step += 1
                self.loss = result.loss
                now = time.perf_counter()
                self.seconds = before + now - started
                speed = (self.step - first) * recipe.training.batch_size / (now - started)
                monitor.step(self.step, {"loss": result.loss, "samples_per_second": speed})
                evaluated = self._evaluate_if_due()
                if evaluated or self.step % _LOG_EVERY == 0 or self.step == total:
                    monitor.record(self.step, self._record(result, rate, speed) | evaluated)
                if self._save_is_due(now - last_save):
                    self._save()
                    last_save = time.perf_counter()
            batches.close()
            if loader.skipped:
                monitor.say(f"pairs that could not be read, replaced by others: {dict(loader.skipped)}")
        if self.step > first:
            self._save()
        if self.step < total:
            self.console.print(
                f"stopped after step {self.step} of {total}; go on with --resume", markup=False
            )
            raise KeyboardInterrupt
        return self._finish(
            (self.step - first) * recipe.training.batch_size / (time.perf_counter() - started)
        )

    def _loader(self) -> Loader:
        data, training = self.recipe.data, self.recipe.training
        source = open_source(data.train, image_column=data.image_column, caption_column=data.caption_column)
        weights = example_weights(source, data.weight_by, data.weights, data.hold_out)
        if data.permute_captions:
            source = PermutedCaptions(source, training.seed)
        used = int((weights > 0).sum())
        self.console.print(
            f"{source.describe()}; {used:,} of {len(source):,} used",
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )
        context = self.model.context_length
        return Loader(
            source=source,
            canvas=canvas_for(self.recipe.augmentation, self.preprocess),
            tokenize=lambda texts: tokenize(texts, context_length=context, truncate=True),
            batch_size=training.batch_size,
            seed=training.seed,
            weights=weights,
            text=data.text,
            workers=data.workers,
            cache=data.cache,
        )

    def _record(self, result: StepResult, rate: float, speed: float) -> dict[str, float]:
        return {
            "samples": self.step * self.recipe.training.batch_size,
            "loss": result.loss,
            "accuracy": result.accuracy,
            "gradient_norm": result.gradient_norm,
            "learning_rate": rate,
            **result.extra,
            "samples_per_second": speed,
            "seconds": self.seconds,
        }

    def _evaluate_if_due(self) -> dict[str, float]:
        every, total = self.recipe.evaluation.every_steps, self.recipe.training.total_steps
        due = self.step == total or (every is not None and self.step % every == 0)
        if self.evaluate is None or not due:
            return {}
        self.model.eval()
        try:
            return dict(self.evaluate(self.model, self.preprocess))
        finally:
            self.model.train()

    def _save_is_due(self, seconds_since_last: float) -> bool:
        settings = self.recipe.checkpoint
        by_steps = settings.every_steps is not None and self.step % settings.every_steps == 0
        by_clock = settings.every_minutes is not None and seconds_since_last > 60 * settings.every_minutes
        return by_steps or by_clock

    def _save(self) -> None:
        values = {"step": self.step, "seconds": self.seconds, "loss": self.loss}
        save_checkpoint(
            checkpoint_folder(self.folder, self.step),
            self.model,
            plain(self.preprocess),
            settings=plain(self.recipe),
            history=self._history(),
            state=optimizer_state(self.model, self.optimizer, values),
        )
        keep_newest(self.folder, self.recipe.checkpoint.keep)

    def _history(self) -> list[dict[str, object]]:
        start = self.recipe.model.init
        return [{"what": "trained", "from": start, "steps": self.step, "seconds": round(self.seconds)}]

    def _finish(self, speed: float) -> Result:
        target = self.folder / "model"
        save_checkpoint(
            target,
            self.model,
            plain(self.preprocess),
            settings=plain(self.recipe),
            history=self._history(),
        )
        samples = self.step * self.recipe.training.batch_size
        return Result(self.step, samples, self.loss, speed, str(target))


def _prepare(run: Path, recipe: Recipe, resume: bool) -> None:
    wanted = plain(recipe)
    asked = run / "recipe.json"
    if not asked.exists():
        if run.exists() and any(run.iterdir()):
            raise SettingsError(f"{run}: is a folder with other files; name a new folder with --out")
        run.mkdir(parents=True, exist_ok=True)
        write_text(asked, json.dumps(wanted, indent=2) + "\n")
        return
    if not resume:
        raise SettingsError(
            f"{run}: holds a run already; go on with --resume, or name another folder with --out"
        )
    before = json.loads(asked.read_text("utf-8"))
    changed = [section for section in wanted if wanted[section] != before.get(section)]
    if changed:
        raise SettingsError(
            f"{asked}: the run was started with other settings in {', '.join(f'[{name}]' for name in changed)}; "
            "resume with the recipe that it was started with, or name another folder with --out"
        )
    if not checkpoints(run) and (run / "model").exists():
        raise CheckpointError(f"{run}: the run is done, but its checkpoints are gone; nothing to resume")


def _starting_model(recipe: Recipe) -> tuple[CLIP, Preprocess]:
    architecture = recipe.model.resolve()
    if recipe.model.init == "scratch":
        return build_model(architecture), Preprocess(architecture.image.resolution)
    from diptych.pretrained import load  # noqa: PLC0415

    model, preprocess = load(recipe.model.init)
    if architecture != model.architecture:
        raise SettingsError(
            f"[model] init {recipe.model.init!r} has another architecture than the recipe asks for"
        )
    return model, preprocess
