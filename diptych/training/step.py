"""One optimizer step over a global batch of any size, on any number of processes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.distributed import row_counts, sum_over_processes
from diptych.training.approaches.task import Task
from diptych.training.optim.mixed_precision import LossScale
from diptych.training.parallel import Alone, Parallel, gradient_norm
from diptych.training.towers import WHOLE, Chunking, Side, kept_of, parts_of

Encode = Callable[[Batch, Tensor], Tensor]


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the global batch. accuracy: what `Task.correct` counts, in 0..1; None where it looked at nothing.
    applied: whether the weights were updated; they are not where the loss or the gradient is not finite.
    """

    loss: float
    accuracy: float | None
    gradient_norm: float
    applied: bool
    extra: dict[str, float]


def training_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    learning_rate: float,
    clip_norm: float | None,
    *,
    group_positives: bool,
    chunking: Chunking = WHOLE,
    parallel: Parallel | None = None,
    scaling: LossScale | None = None,
) -> StepResult:
    """Forward, backward, update.

    batch: this process's share of the global batch. chunking: how much of it is in memory at a time; the gradient
    does not depend on it, but for rounding and for batch norms, whose batch is a chunk. scaling: of a float16 loss.
    Where a number is not finite, nothing is changed: neither weights, nor optimizer state, nor batch-norm statistics.
    """
    parallel = parallel if parallel is not None else Alone(task.towers)
    batch = on_device(batch, next(task.model.parameters()).device)
    buffers = [buffer.clone() for buffer in task.model.buffers()]
    optimizer.zero_grad(set_to_none=True)
    counts = row_counts(len(batch.tokens), batch.tokens.device)
    images, texts = _sides(task, batch, chunking, parallel, counts)
    left, right = images.features(), texts.features()
    total, count = task.loss(left, right, batch.groups if group_positives else None)
    seen = sum_over_processes(torch.tensor(count, device=left.device))
    loss = total / seen
    (loss if scaling is None else scaling.scaled(loss)).backward()
    if left.requires_grad:  # a language model looks at no images
        images.backward(_gradient_of(left))
    if right.requires_grad:  # texts that are predicted are ids, which no tower has encoded
        texts.backward(_gradient_of(right))
    parallel.finish()

    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    if scaling is not None:
        scaling.unscale(parameters)
    norm = gradient_norm(parameters)
    loss = sum_over_processes(loss.detach().clone())
    applied = bool(torch.isfinite(loss) and torch.isfinite(norm))
    if applied:
        _update(optimizer, parameters, learning_rate, norm, clip_norm)
        extra = task.after_step()
    else:
        with torch.no_grad():
            for buffer, before in zip(task.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        optimizer.zero_grad(set_to_none=True)
        extra = {}
    accuracy = _accuracy(*task.correct(left.detach(), right.detach(), batch.groups))
    return StepResult(loss.item(), accuracy, norm.item(), applied, extra)


def _sides(
    task: Task, batch: Batch, chunking: Chunking, parallel: Parallel, counts: Sequence[int]
) -> tuple[Side, Side]:
    """Return both sides of the batch. counts: rows of each process."""
    rows = torch.arange(len(batch.tokens), device=batch.tokens.device)

    def side(name: str, encode: Encode, order: Tensor, size: int | None) -> Side:
        parts = parts_of(order, size, max(counts))
        kept = kept_of(len(parts), chunking.keep, distributed=len(counts) > 1)
        tower = task.towers.get(name, task.model)
        return Side(tower, partial(encode, batch), parts, kept, parallel.syncing)

    text_order = rows if chunking.texts is None else task.text_order(batch)
    return (
        side("image", task.image, rows, chunking.images),
        side("text", task.text, text_order, chunking.texts),
    )


def _update(
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    learning_rate: float,
    norm: Tensor,
    clip_norm: float | None,
) -> None:
    if clip_norm is not None:
        # As torch.nn.utils.clip_grad_norm_ does it, which cannot mix sharded and whole parameters.
        factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor.to(parameter.grad.dtype))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)
    optimizer.step()


def _gradient_of(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise RuntimeError("the objective does not depend on the features of one side")
    return leaf.grad


def _accuracy(correct: Tensor, looked_at: int) -> float | None:
    sums = sum_over_processes(torch.stack([correct, torch.full_like(correct, looked_at)]))
    right, asked = sums.tolist()
    return right / asked if asked else None


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on a device; as bytes, which is a quarter of what the pixels will be."""
    moved: dict[str, Any] = {
        field.name: value.to(device, non_blocking=True)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return dataclasses.replace(batch, **moved)
