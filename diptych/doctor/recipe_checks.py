"""What `diptych doctor RECIPE` looks at: is this recipe going to work here, before time is spent?"""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from diptych.data.sources.opening import Source, open_source
from diptych.doctor.data_checks import Weights, data_checks, guessing_text
from diptych.doctor.machine_checks import Check, size
from diptych.errors import DiptychError
from diptych.hardware import has_native_bfloat16
from diptych.pretrained import available_models
from diptych.runs.evaluations import evaluation_of, open_tasks
from diptych.training.feeding import open_examples
from diptych.training.planning.forecast import (
    USABLE,
    Memory,
    blank_model,
    fitting,
    free_memory,
    kept_bytes,
    memory_of,
)
from diptych.training.planning.pace import measure_pace, seconds_a_step
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.starting import with_classes
from diptych.weights.naming import split_name
from diptych.wording import count_of, duration

TIMED = 64  # pairs that may be read for the timing
# Peak learning rates of AdamW outside of which CLIP models are not trained: the paper's are 3.6e-4 to 5e-4, the
# highest that learned anything here was 1e-2 on a model of a few thousand parameters.
LEARNING_RATES = (1e-7, 3e-2)
WORTH_SAVING = 600.0  # seconds of work that a stop may cost without a warning


def recipe_checks(
    location: str, assignments: Sequence[str], device: str = "cpu", out: Path | None = None
) -> Iterator[Check]:
    """Each check as soon as it is done; the ones that need what an earlier one did not find are left out.

    device: where the run would be. out: its folder, for the space on its disk; the working folder when not given.
    """
    try:
        recipe = load_recipe(location, tuple(assignments))
        recipe.model.resolve()
    except DiptychError as error:
        yield Check("recipe", "fail", str(error))
        return
    yield Check("recipe", "ok", f"{location}: every setting is known")
    yield _start(recipe)
    yield _precision(recipe, device)
    yield _learning_rate(recipe)
    yield _warmup(recipe)
    yield _evaluation(recipe)
    try:
        source, weights = open_examples(recipe.data)
        recipe = with_classes(recipe)
    except DiptychError as error:
        yield Check("data", "fail", str(error))
        yield from _forecast(recipe, device, out, None, np.zeros(0))
        return
    yield from data_checks(recipe, source, weights)
    yield from _forecast(recipe, device, out, source, weights)


def _start(recipe: Recipe) -> Check:
    init = recipe.model.init
    place = init if init == "scratch" else split_name(init)[0]
    if place == "scratch" or place in available_models() or Path(place).exists():
        return Check("start", "ok", "from scratch" if init == "scratch" else f"from {init}")
    return Check(
        "start",
        "fail",
        f"[model] init {init!r}: no such file or folder, and no published name; "
        'expected "scratch", a checkpoint, or a name that `diptych models` lists',
    )


def _precision(recipe: Recipe, device: str) -> Check:
    precision = recipe.training.precision
    if precision == "bfloat16" and not has_native_bfloat16(device):
        other = "float16" if device.startswith("cuda") else "float32"
        return Check(
            "precision",
            "warn",
            f'{device} does not compute in bfloat16, only imitates it; set training.precision = "{other}", '
            "which is faster here",
        )
    if precision == "float16" and device == "cpu":
        better = "bfloat16" if has_native_bfloat16(device) else "float32"
        return Check(
            "precision",
            "warn",
            f'float16 is for GPUs and slow on this CPU; set training.precision = "{better}"',
        )
    return Check("precision", "ok", f"{precision} on {device}")


def _learning_rate(recipe: Recipe) -> Check:
    rate = recipe.optimizer.learning_rate
    known = guessing_text(recipe)
    guessing = f"the loss would stay {'where it starts' if known is None else f'at {known}'}"
    low, high = LEARNING_RATES
    if not rate > 0:
        return Check(
            "learning rate", "fail", f"{rate:g}: nothing is learned, {guessing}; set optimizer.learning_rate"
        )
    if rate < low:
        return Check(
            "learning rate", "warn", f"{rate:g} is next to nothing: {guessing}; the paper's ViT-B/32 has 5e-4"
        )
    if rate > high:
        return Check(
            "learning rate",
            "warn",
            f"{rate:g} breaks most models in the first steps, after which {guessing}; the paper's ViT-B/32 has 5e-4",
        )
    return Check("learning rate", "ok", f"{rate:g} at its peak")


def _warmup(recipe: Recipe) -> Check:
    warmup, steps = recipe.schedule.warmup_steps, recipe.training.total_steps
    detail = f"{warmup:,} of {steps:,} steps"
    if warmup >= steps:
        return Check(
            "warm-up",
            "warn",
            f"{detail}: the learning rate never reaches its peak; set schedule.warmup_steps near {max(1, steps // 20)}",
        )
    return Check("warm-up", "ok", detail)


def _evaluation(recipe: Recipe) -> Check:
    tasks = recipe.evaluation.tasks
    best = recipe.evaluation.best
    if not tasks and best is not None:
        return Check("evaluation", "fail", f"best = {best!r}: nothing is evaluated; add [[evaluation.tasks]]")
    captions = recipe.evaluation.captions
    if not tasks and captions is None:
        return Check("evaluation", "ok", "no tasks: only the loss will be recorded")
    try:
        counts = [f"{task.name}: {len(data):,} rows" for task, data in open_tasks(recipe)]
        if captions is not None:
            counts.append(f"captions: {len(open_source(captions)):,} rows")
        evaluation_of(recipe)
    except DiptychError as error:
        return Check("evaluation", "fail", str(error))
    every, steps = recipe.evaluation.every_steps, recipe.training.total_steps
    if every is not None and every > steps:
        return Check(
            "evaluation",
            "warn",
            f"every {every:,} steps of {steps:,}: only after the last one; set evaluation.every_steps near "
            f"{max(1, steps // 10)}",
        )
    return Check("evaluation", "ok", "; ".join(counts))


def _forecast(
    recipe: Recipe,
    device: str,
    out: Path | None,
    source: Source | None,
    weights: Weights,
) -> Iterator[Check]:
    """Memory, time, checkpoints: what the model itself says when a few rows go through it."""
    try:
        model = blank_model(recipe, device)
        kept = kept_bytes(model, recipe)
    except (DiptychError, torch.OutOfMemoryError) as error:
        yield Check("memory of the run", "fail", f"not even a few pairs can be computed: {error}")
        return
    used = np.flatnonzero(weights)
    free = free_memory(device)
    cached = len(used) if recipe.data.cache else 0
    memory = memory_of(recipe, model, kept, free if free is not None else 1 << 62, cached)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    smaller = fitting(memory, kept, free or 0)
    yield _memory(recipe, memory, smaller, free=free, parameters=parameters, device=device)
    seconds = math.nan
    if source is not None and len(used):
        try:
            places = used[np.linspace(0, len(used) - 1, min(TIMED, len(used))).astype(int)].tolist()
            pace, rows = measure_pace(recipe, model, source, places)
        except (DiptychError, torch.OutOfMemoryError) as error:
            yield Check("time of the run", "warn", f"no estimate: {error}")
        else:
            pairs = recipe.training.total_steps * recipe.training.batch_size
            read_share = min(1.0, len(used) / pairs) if recipe.data.cache else 1.0
            computing, reading = seconds_a_step(pace, recipe, memory, device, read_share)
            seconds = computing + reading if device == "cpu" else max(computing, reading)
            yield _time(recipe, computing, reading, seconds, rows)
    yield _checkpoints(recipe, seconds)
    yield _disk(recipe, memory, out)


def _memory(
    recipe: Recipe, memory: Memory, smaller: Memory, *, free: int | None, parameters: int, device: str
) -> Check:
    """smaller: the same run in chunks that fit, where any do."""
    state = memory.weights + memory.gradients + memory.moments + memory.average
    at_once = "the whole batch at once" if memory.chunk is None else f"{memory.chunk:,} pairs at once"
    if recipe.training.chunk == "auto" and memory.chunk is not None:
        at_once += ', about what chunk = "auto" will find'
    on_cpu = device == "cpu"
    needed = memory.on_device + (memory.on_host if on_cpu else 0)
    where = "with" if on_cpu else "and in the machine's own memory"
    detail = (
        f"about {size(needed)}: {size(state)} for {count_of(parameters)} parameters in training, "
        f"{size(memory.activations + memory.loss)} for activations and loss ({at_once}), "
        f"{where} {size(memory.on_host)} of batches{' and cached pictures' if memory.cache else ''}"
    )
    if free is None:
        return Check("memory of the run", "ok", detail)
    detail += f"; {size(free)} are free on {device}"
    if needed <= USABLE * free:
        return Check("memory of the run", "ok", detail)
    remedies = []
    fits = smaller.on_device + (smaller.on_host if on_cpu else 0) <= USABLE * free
    if fits and smaller.activations < memory.activations:
        remedies.append(f"set training.chunk = {smaller.chunk} (the same gradient, in chunks)")
    if not recipe.training.recompute:
        remedies.append("training.recompute = true")
    if recipe.training.precision == "float32":
        remedies.append('training.precision = "bfloat16"')
    remedies.append("or train a smaller model")
    return Check(
        "memory of the run", "warn" if needed <= free else "fail", f"{detail}; {', '.join(remedies)}"
    )


def _time(recipe: Recipe, computing: float, reading: float, seconds: float, rows: int) -> Check:
    steps, batch = recipe.training.total_steps, recipe.training.batch_size
    share = reading / (computing + reading)
    detail = (
        f"an estimate from steps of up to {rows} pairs: {duration(steps * seconds)} for {steps:,} steps, "
        f"{batch / seconds:,.0f} pairs a second, {share:.0%} of the work is reading pictures; evaluations come on top"
    )
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > processors + 1:
        detail += f"; the machine is busy with other work now (load {load:.0f} on {processors} processors)"
    if reading > computing:
        return Check(
            "time of the run",
            "warn",
            f"{detail}. Reading decides the speed: set data.cache = true if the pictures fit into memory, raise "
            "data.workers, or make the pictures smaller before training",
        )
    return Check("time of the run", "ok", detail)


def _checkpoints(recipe: Recipe, seconds: float) -> Check:
    """seconds: of a step; nan where it could not be estimated."""
    settings, steps = recipe.checkpoint, recipe.training.total_steps
    by_steps = settings.every_steps if settings.every_steps is not None else math.inf
    by_clock = 60 * settings.every_minutes / seconds if settings.every_minutes is not None else math.inf
    # Where the time is not known, the clock is taken to save in time.
    every = by_steps if math.isnan(by_clock) else min(by_steps, by_clock)
    said = [f"{settings.every_steps:,} steps"] if settings.every_steps is not None else []
    said += [f"{settings.every_minutes:g} minutes"] if settings.every_minutes is not None else []
    detail = f"every {' or '.join(said)}" if said else "only after the last step"
    at_stake = min(every, steps) * seconds
    if every >= steps and (not said or settings.every_minutes is None or at_stake > WORTH_SAVING):
        return Check(
            "checkpoints",
            "warn",
            f"{detail}: the run of {steps:,} steps ends before the first, so a crash loses it all; "
            "set checkpoint.every_minutes = 10",
        )
    if at_stake > 6 * WORTH_SAVING:
        return Check(
            "checkpoints",
            "warn",
            f"{detail}: a crash loses up to {duration(at_stake)} of work; set checkpoint.every_minutes = 10",
        )
    return Check("checkpoints", "ok", f"{detail}; the newest {settings.keep} are kept")


def _disk(recipe: Recipe, memory: Memory, out: Path | None) -> Check:
    one = memory.weights + memory.moments + memory.average
    keep = recipe.checkpoint.keep + 1  # one more while the newest is written
    best = memory.weights if recipe.evaluation.best is not None else 0
    needed = keep * one + memory.weights + memory.average + best
    folder = (out or Path.cwd()).absolute()
    place = next(found for found in (folder, *folder.parents) if found.exists())
    free = shutil.disk_usage(place).free
    detail = f"{size(needed)} for {keep} checkpoints of {size(one)} and the model; {size(free)} are free at {place}"
    if needed > free:
        return Check(
            "disk of the run", "fail", f"{detail}; make room, or name a folder on another disk with --out"
        )
    return Check("disk of the run", "ok", detail)
