"""How long a run is going to take, measured on a few pairs before any time is spent.

An estimate: a few real steps on a few rows, and the reading of as many pairs, as fast as the machine is at that moment.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.data.images.augmentations import random_table
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.models.image_model import ImageModel
from diptych.models.layers.blocks import set_recompute
from diptych.tokenizer import tokenize
from diptych.training.approaches.task import Task
from diptych.training.planning.forecast import Memory, made_up_batch, silence
from diptych.training.settings import Recipe

# Timed steps: rows of the first and of the largest; more rows are tried while a step is quick, and in any case until
# the steps were large or took long together, for what a step takes besides its rows would pass for theirs.
_TIMED_ROWS, _LARGE_ENOUGH = (2, 64), 16
_QUICK_SECONDS, _LONG_SECONDS = 1.5, 20.0


@dataclass(frozen=True)
class Pace:
    """Seconds that a pair takes, and that a step takes besides.

    forward: one pass without a graph. training: forward and backward. reading: from the disk to pixels, in one thread.
    update: of a step, however many pairs it has.
    """

    forward: float
    training: float
    reading: float
    update: float


def measure_pace(
    recipe: Recipe, model: ImageModel, source: Source, positions: Sequence[int]
) -> tuple[Pace, int]:
    """Time real steps on more and more pairs, until one takes a while. Returns the pace, and the pairs of the largest.

    positions: of pairs of the source, of which at most 64 are read.
    Raises DataError where no pair among them can be read.
    """
    preprocess = Preprocess(model.architecture.image.resolution)
    few, most = _TIMED_ROWS
    most = min(most, recipe.training.batch_size)
    canvas, tokens, reading = _read(recipe, preprocess, source, positions[:most], model.context_length)
    task = recipe.make_task(model, preprocess)
    set_recompute(model, recipe.training.recompute)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    rows = min(few, len(canvas))
    _timed_step(task, optimizer, canvas[:rows], tokens[:rows])  # allocates, and warms up
    smaller, (forward, both, update) = (
        rows,
        _timed_step(task, optimizer, canvas[:rows], tokens[:rows]),
    )
    forward_once = both_once = 0.0
    started = time.perf_counter()
    while rows < len(canvas) and (
        both < _QUICK_SECONDS
        or (rows < _LARGE_ENOUGH and time.perf_counter() - started + 2 * both < _LONG_SECONDS)
    ):
        smaller, rows = rows, min(2 * rows, len(canvas))
        before, (forward, both, update) = (
            (forward, both),
            _timed_step(task, optimizer, canvas[:rows], tokens[:rows]),
        )
        forward_once = _once(smaller, before[0], rows, forward)
        both_once = _once(smaller, before[1], rows, both)
    model.zero_grad(set_to_none=True)
    pace = Pace(
        forward=(forward - forward_once) / rows,
        training=(both - both_once) / rows,
        reading=reading,
        update=both_once + update,
    )
    return pace, rows


def _once(few: int, few_seconds: float, more: int, more_seconds: float) -> float:
    """Return the seconds that a step takes however many rows it has, such as for the gradient of an embedding.

    The offset of the straight line through two steps, at most half of the longer one: a noisy clock must not make
    rows free.
    """
    slope = (more_seconds - few_seconds) / (more - few)
    return min(max(0.0, more_seconds - more * slope), more_seconds / 2)


def _timed_step(
    task: Task, optimizer: torch.optim.Optimizer, canvas: Tensor, tokens: Tensor
) -> tuple[float, float, float]:
    """Return the seconds of a forward pass without a graph, of one with its backward pass, and of the update."""
    device = next(task.model.parameters()).device
    batch = made_up_batch(canvas, tokens, device, silence(task.model, len(canvas)))
    optimizer.zero_grad(set_to_none=True)
    started = _now(device)
    with torch.no_grad():
        task.image(batch, batch.rows)
        task.text(batch, batch.rows)
    forward = _now(device)
    image, text = task.image(batch, batch.rows), task.text(batch, batch.rows)
    total, count = task.loss(image, text, None)
    (total / count).backward()
    both = _now(device)
    optimizer.step()
    return forward - started, both - forward, _now(device) - both


def seconds_a_step(
    pace: Pace, recipe: Recipe, memory: Memory, device: str, read_share: float
) -> tuple[float, float]:
    """Return the seconds of computing and of reading in a step. read_share: share of pairs not in the cache, 0..1.

    With chunks, a pair whose graph is not kept is computed forward once more. On a CPU the two share the processors
    and add up; beside a GPU the longer one decides.
    """
    training = recipe.training
    batch = training.batch_size
    again = 0 if memory.chunk is None else max(0, batch - memory.keep * memory.chunk)
    computing = batch * pace.training + again * pace.forward + pace.update
    processors = os.cpu_count() or 1
    threads = processors if device == "cpu" else min(processors, max(1, recipe.data.workers))
    return computing, read_share * batch * pace.reading / threads


def _read(
    recipe: Recipe, preprocess: Preprocess, source: Source, positions: Sequence[int], context: int
) -> tuple[Tensor, Tensor, float]:
    """Return canvases, tokens, and the seconds that a pair took."""
    canvas = canvas_for(recipe.augmentation, preprocess)
    chance = random_table(0, len(positions)).numpy()[:, :2]
    images, captions = [], []
    started = time.perf_counter()
    for position, numbers in zip(positions, chance, strict=True):
        try:
            example = source[position]
            pixels = canvas.crop(canvas.decode(example), numbers)
        except (DataError, OSError):
            continue
        images.append(torch.from_numpy(pixels.copy()))
        captions.append(example.captions[0] if example.captions else "")
    if not images:
        raise DataError(f"{source.name}: none of {len(positions)} pairs can be read")
    # The text of a model with one token is its class: here the first, whichever it is.
    tokens = torch.zeros(len(captions), 1, dtype=torch.long)
    if context > 1:
        tokens = tokenize(captions, context_length=context, truncate=True)
    return torch.stack(images), tokens, (time.perf_counter() - started) / len(positions)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
