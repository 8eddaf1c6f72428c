"""Forecast the memory, the time, the checkpoints and the disk space of a run from a few rows through its model."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from diptych.data.sources.opening import Source
from diptych.doctor.check import Check
from diptych.doctor.data_checks import Weights
from diptych.errors import DiptychError
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
from diptych.training.settings import Recipe
from diptych.wording import count_of, duration, size

TIMED = 64  # pairs that may be read for the timing
WORTH_SAVING = 600.0  # seconds of work that a stop may cost without a warning


def forecast_checks(
    recipe: Recipe,
    device: str,
    out: Path | None,
    source: Source | None,
    weights: Weights,
) -> Iterator[Check]:
    """Yield the checks of memory, time, checkpoints and disk.

    out: the folder of the run; the working folder if None. source, weights: the training data and its rows' weights,
    (rows,); without data there is no estimate of the time.
    """
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
    """Check the memory. smaller: the same run in chunks that fit, if any do."""
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
        f"{where} {size(memory.on_host)} of batches{' and cached images' if memory.cache else ''}"
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
        f"{batch / seconds:,.0f} pairs a second, {share:.0%} of the work is reading images; evaluations come on top"
    )
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > processors + 1:
        detail += f"; the machine is busy with other work now (load {load:.0f} on {processors} processors)"
    if reading > computing:
        return Check(
            "time of the run",
            "warn",
            f"{detail}. Reading decides the speed: set data.cache = true if the images fit into memory, raise "
            "data.workers, or make the images smaller before training",
        )
    return Check("time of the run", "ok", detail)


def _checkpoints(recipe: Recipe, seconds: float) -> Check:
    """Check how much work a crash would lose. seconds: of a step; nan if it could not be estimated."""
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
