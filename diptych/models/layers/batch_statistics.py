"""Running averages of batch norms, where a batch goes through a network more than once in a step."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def frozen_running_statistics(module: nn.Module) -> Iterator[None]:
    """A context in which the batch norms inside `module` do what they do, but leave their running averages alone.

    In training mode they still normalise by the batch. For passes that repeat another one: recomputation in the
    backward pass, and the second pass over the chunks of a batch.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Not `track_running_stats = False`: the recorded graph would hold fewer tensors than the pass it repeats.
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms inside `module`."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]


@torch.no_grad()
def estimate_statistics(
    module: nn.Module, run: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> None:
    """Set the running averages of the batch norms inside `module` to the mean over batches of its inputs.

    For weights that no batch has gone through, such as a mean of two models': the averages of either do not fit them
    (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima", section 3.2). run: sends a batch through `module`.
    The number of batches seen, and everything else, stays as it is. Without a batch nothing changes.
    """
    norms, batches = batch_norms(module), list(batches)
    if not norms or not batches:
        return
    before = [(norm.momentum, norm.num_batches_tracked, norm.training) for norm in norms]
    for norm in norms:
        # A counter of its own, from zero: without a momentum the average is that of all batches alike, and the first
        # one takes the place of what was there.
        norm.momentum, norm.num_batches_tracked = None, torch.zeros_like(norm.num_batches_tracked)  # type: ignore[arg-type]
        norm.training = True
    try:
        for batch in batches:
            run(batch)
    finally:
        for norm, (momentum, count, training) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked, norm.training = momentum, count, training
