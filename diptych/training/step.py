"""One optimizer step."""

from dataclasses import dataclass

import torch

from diptych.data.loader import Batch
from diptych.errors import DiptychError
from diptych.objectives.pairs import Pairs
from diptych.training.tasks import Task


class NotFiniteError(DiptychError):
    """The loss or the gradient is not a number; nothing was updated."""


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the batch. accuracy: of the batch's images that rank a right text first, in 0..1."""

    loss: float
    accuracy: float
    gradient_norm: float
    extra: dict[str, float]


def training_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    learning_rate: float,
    clip_norm: float | None,
    *,
    group_positives: bool,
) -> StepResult:
    """Forward, backward, update. Raises NotFiniteError, and changes nothing, where a number is not finite."""
    optimizer.zero_grad(set_to_none=True)
    left, right = task.encode(batch)
    groups = batch.groups.to(left.device)
    pairs = Pairs.whole(left, right, groups if group_positives else None)
    total, count = task.loss(pairs)
    loss = total / count
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm is not None else float("inf"))
    if not torch.isfinite(loss) or not torch.isfinite(norm):
        raise NotFiniteError(
            f"loss {loss.item()}, gradient norm {norm.item()} at sample {batch.position}; nothing was "
            "updated. A lower learning rate, a longer warm-up, or precision = 'float32' usually helps"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    with torch.no_grad():
        best = (left @ right.T).argmax(dim=1)
        accuracy = (groups[best] == groups).float().mean().item()
    return StepResult(loss.item(), accuracy, norm.item(), task.after_step())
