"""Everything that a run needs in order to go on where it stopped."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diptych.errors import CheckpointError
from diptych.training.parallel import assign
from diptych.training.saving.layout import checkpoints
from diptych.weights.checkpoint import TrainingState, verify_checkpoint


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, values: Mapping[str, float]
) -> TrainingState:
    """Return the optimizer state of every parameter by name, and the run's own numbers.

    The learning rate, the sample order and the randomness are functions of the step: they need no place here.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    for parameter, state in optimizer.state.items():
        for kind, value in state.items():
            tensors[f"{kind}.{names[id(parameter)]}"] = value.detach()
    return TrainingState(tensors, {**values, "threads": torch.get_num_threads()})


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put the optimizer state back; the inverse of `optimizer_state`."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        if name not in parameters:
            raise CheckpointError(f"the saved optimizer state has {name!r}, which the model has not")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # Fused updates walk the memory: a moment must lie as its parameter does, channels last included.
            moment = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
            assign(moment, value)
            optimizer.state[parameter][kind] = moment
        else:
            optimizer.state[parameter][kind] = value.to(parameter.device)


def newest_whole(run: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest checkpoint whose files have the hashes written with them, and the damaged newer ones."""
    damaged: list[Path] = []
    for folder in reversed(checkpoints(run)):
        try:
            verify_checkpoint(folder)
        except (CheckpointError, OSError):
            damaged.append(folder)
        else:
            return folder, damaged
    return None, damaged
