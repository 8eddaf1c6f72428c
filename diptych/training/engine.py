"""The training loop.

A run lies in one folder:

    recipe.json                what was asked for, resolved
    metrics.jsonl              one line every few steps
    tensorboard/               the same, where TensorBoard is installed
    checkpoints/step-00000500  to resume from
    model/                     the result
    model-ema/                 the average of its weights, where the recipe asks for one
    model-best/                the weights that did best in an evaluation, where the recipe names its metric
    start/                     what fine-tuning starts from, with the classifier that it begins with

A run starts from its own newest whole checkpoint when it is resumed, else from `[model] init`, else from scratch.
Under torchrun every process runs `train`; the first one reports and writes.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diptych.config import plain
from diptych.data.left_out import LeftOut
from diptych.distributed import max_over_processes, processes, wait_for_all, world
from diptych.models.layers.blocks import compile_blocks, set_recompute
from diptych.training.approaches.task import Task
from diptych.training.best import Best
from diptych.training.evaluating import Evaluate, Evaluation, to_evaluate
from diptych.training.feeding import open_training_data
from diptych.training.monitor import Monitor
from diptych.training.not_finite import tell_not_finite
from diptych.training.optim.ema import Ema
from diptych.training.optim.mixed_precision import loss_scale
from diptych.training.optim.optimizer import build_optimizer
from diptych.training.optim.schedule import learning_rate
from diptych.training.parallel import share_model
from diptych.training.planning.chunk_choice import choose_chunks
from diptych.training.positives import with_positives
from diptych.training.saving.interrupt import StopRequest, interruption, on_interrupt
from diptych.training.saving.resuming import data_of, refuse_other_data
from diptych.training.saving.run_files import RunFiles, begin_run
from diptych.training.saving.saver import Saver
from diptych.training.settings import Recipe
from diptych.training.starting import starting_model, with_classes
from diptych.training.step import StepResult, training_step
from diptych.training.towers import Chunking
from diptych.training.trained_parts import choose_trained

_LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Result:
    """What a run came to.

    loss: of the last step. samples_per_second: of this process's part of the run. best: the evaluation whose weights
    are in model-best/, where the recipe names a metric. left_out: what the data's source left out, and the
    examples that this process could not read, each counted once.
    """

    step: int
    samples: int
    loss: float
    samples_per_second: float
    checkpoint: str
    best: Best | None
    left_out: LeftOut = field(default_factory=LeftOut)


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

    evaluate: called by every process at the steps that `[evaluation]` names and after the last one, with the model
        in evaluation mode (its averaged weights where the recipe has `ema`); what it returns goes into the log.
    Raises SettingsError where `out` holds a run already and `resume` is not given; a stopped run goes on from its
    newest whole checkpoint and gives the weights that it would have given without the stop (same machine, threads
    and versions). Ctrl-C ends the step, saves, and raises KeyboardInterrupt; SIGTERM raises its child Terminated.
    """
    run = Path(out)
    with processes(device) as here:
        if here.leads:
            begin_run(run, recipe, resume=resume)
        wait_for_all()
        shown = (console or Console(stderr=True)) if here.leads else Console(quiet=True)
        engine = _Engine(recipe, run, torch.device(device), evaluate, shown)
        try:
            if resume:
                engine.restore()
            return engine.run()
        finally:
            engine.close()


class _Engine:
    def __init__(
        self, recipe: Recipe, run: Path, device: torch.device, evaluate: Evaluate | None, console: Console
    ) -> None:
        recipe, training = with_classes(recipe), recipe.training
        self.recipe = recipe
        self.evaluation = Evaluation(recipe.evaluation, training.total_steps, evaluate)
        self.console = console
        self.device = device
        torch.manual_seed(training.seed)
        self.model, self.preprocess = starting_model(recipe, self._say)
        choose_trained(self.model, recipe)
        self.model.to(device).train()
        if world().size == 1 or training.distributed == "ddp":
            # Convolutions are fastest so; shards must lie in the plain order.
            self.model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        set_recompute(self.model, training.recompute)
        if training.compile:
            compile_blocks(self.model)
        self.task: Task = recipe.make_task(self.model, self.preprocess)
        self.parallel = share_model(self.model, self.task.towers, training.distributed, device.type)
        self.task.use(self.parallel.towers)
        self.optimizer = build_optimizer(self.model, recipe.optimizer, training.seed)
        self.scaling = loss_scale(training.precision)
        self.ema = None if training.ema is None else Ema(self.model, training.ema)
        self.files = RunFiles(run, recipe, self.preprocess)
        self.chunking: Chunking | None = None
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan
        self.not_finite = 0  # steps in a row
        # The values of the checkpoint that the run goes on from.
        self.resumed_from: Mapping[str, Any] | None = None
        self.data: Mapping[str, Any] = {}  # what checkpoints note of the data

    def restore(self) -> None:
        """Go back to the newest whole checkpoint of the run, if there is one."""
        values = self.files.restore(self.model, self.optimizer, self.ema, self._say)
        if values is None:
            return
        self.resumed_from = values
        self.scaling.load(values)
        self.step, self.seconds, self.loss = (
            int(values["step"]),
            float(values["seconds"]),
            float(values["loss"]),
        )
        self.not_finite = int(values["not_finite"])
        self.evaluation.best = self.files.restore_best(values.get("best"), self._say)
        images, texts, keep = values["chunking"]
        self.chunking = Chunking(images, texts, keep)
        if values["threads"] != torch.get_num_threads():
            self._say(
                f"this run had {values['threads']} threads and now has {torch.get_num_threads()}: it goes on, but "
                "not to the last bit as it would have"
            )

    def run(self) -> Result:
        recipe, total = self.recipe, self.recipe.training.total_steps
        loader = open_training_data(recipe, self.model, self.preprocess, self._say)
        self.data = data_of(loader)
        # A run that is done reads no more, but what follows may measure it on its held-out part.
        if self.resumed_from is not None and (recipe.data.validation or not self._done()):
            refuse_other_data(self.files.folder, self.resumed_from.get("data"), loader, recipe, self._say)
        started, first, before = time.perf_counter(), self.step, self.seconds
        last_save = started
        guessing = recipe.approach.chance_loss
        chance = None if guessing is None else guessing(recipe.training.batch_size)
        board = Monitor(self.files.folder, total, self.step, chance, self.console, writes=world().leads)
        with on_interrupt() as stop, self.files.saver() as saver, board as monitor:
            batches = loader.batches(self.step * recipe.training.batch_size)
            stopped = 0
            while not self._done() and not stopped:
                batch = with_positives(next(batches), recipe.objective.positives, self.device)
                if self.chunking is None:
                    self.chunking = choose_chunks(
                        recipe, self.model, len(batch.tokens), str(self.device), self._say
                    )
                rate = learning_rate(self.step, total, recipe.optimizer.learning_rate, recipe.schedule)
                result = training_step(
                    self.task,
                    self.optimizer,
                    batch,
                    rate,
                    recipe.optimizer.clip_norm,
                    group_positives=recipe.objective.positives != "pair",
                    chunking=self.chunking,
                    parallel=self.parallel,
                    scaling=self.scaling,
                )
                self._after(result, monitor)
                now = time.perf_counter()
                self.seconds = before + now - started
                record = {
                    "loss": result.loss,
                    "samples_per_second": (self.step - first) * recipe.training.batch_size / (now - started),
                    "data_share": loader.waited / (now - started),
                }
                monitor.step(self.step, record)
                evaluated = self._evaluate(saver) if self.evaluation.is_due(self.step) else {}
                if evaluated or not result.applied or self.step % _LOG_EVERY == 0 or self.step == total:
                    monitor.record(self.step, {**self._record(result, rate), **record, **evaluated})
                stopped, save = self._agree(stop, now - last_save)
                if save or stopped or self._done():
                    # A checkpoint says that these steps are not done again: their log must be there before it is.
                    monitor.sync()
                    self._save(saver)
                    last_save = time.perf_counter()
            batches.close()
            if loader.skipped:
                monitor.say(
                    f"pairs of this process that could not be read, replaced by others: {dict(loader.skipped)} of "
                    f"{loader.asked:,}"
                )
        if not self._done():
            self._say(f"stopped after step {self.step} of {total}; go on with --resume")
            raise interruption(stopped)
        speed = (self.step - first) * recipe.training.batch_size / (time.perf_counter() - started)
        return self._finish(speed, loader.left_out)

    def _done(self) -> bool:
        """Return whether it was the last step, or evaluations have found nothing better for long enough."""
        return self.step >= self.recipe.training.total_steps or self.evaluation.is_exhausted(self.step)

    def close(self) -> None:
        """Let go of the other processes."""
        self.task.use(self.task.towers)
        self.parallel.close()

    def _after(self, result: StepResult, monitor: Monitor) -> None:
        """Count the step, and what was wrong with it."""
        self.step += 1
        if result.applied:
            self.scaling.succeeded()
            self.loss, self.not_finite = result.loss, 0
            if self.ema is not None:
                self.ema.update(self.model, self.step)
            return
        if not self.scaling.overflowed():
            self.not_finite += 1
            most = self.recipe.training.most_not_finite
            tell_not_finite(self.step, result, self.not_finite, most, monitor.say)

    def _record(self, result: StepResult, rate: float) -> dict[str, float]:
        return {
            "samples": self.step * self.recipe.training.batch_size,
            "loss": result.loss,
            **({} if result.accuracy is None else {"accuracy": result.accuracy}),
            "gradient_norm": result.gradient_norm,
            "learning_rate": rate,
            **result.extra,
            "seconds": self.seconds,
        }

    def _evaluate(self, saver: Saver | None) -> dict[str, float]:
        """Return what the log gets; save the weights if they are the best so far."""
        with to_evaluate(self.model, self.ema) as model:
            metrics = self.evaluation.measure(model, self.preprocess)
            best = self.evaluation.new_best(metrics, self.step)
            if best is not None:
                # Before the next checkpoint, whose state then says that they are there.
                self.files.save_best(saver, model, best, self.seconds)
        return metrics

    def _agree(self, stop: StopRequest, seconds_since_save: float) -> tuple[int, bool]:
        """Return the signal to stop for, 0 for none, and whether to save: the same in every process."""
        settings = self.recipe.checkpoint
        by_steps = settings.every_steps is not None and self.step % settings.every_steps == 0
        by_clock = settings.every_minutes is not None and seconds_since_save > 60 * settings.every_minutes
        flags = max_over_processes(torch.tensor([stop.number, by_steps or by_clock], device=self.device))
        return int(flags[0]), bool(flags[1])

    def _save(self, saver: Saver | None) -> None:
        assert self.chunking is not None
        values = {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "not_finite": self.not_finite,
            "best": None if self.evaluation.best is None else plain(self.evaluation.best),
            "chunking": [self.chunking.images, self.chunking.texts, self.chunking.keep],
            "data": self.data,
            **self.scaling.state(),
        }
        self.files.save(saver, self.model, self.optimizer, self.ema, values)

    def _finish(self, speed: float, left_out: LeftOut) -> Result:
        target = self.files.finish(self.model, self.ema, self.step, self.seconds)
        samples = self.step * self.recipe.training.batch_size
        return Result(self.step, samples, self.loss, speed, str(target), self.evaluation.best, left_out)

    def _say(self, message: str) -> None:
        self.console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)
