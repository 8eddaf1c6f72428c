"""Gradient checkpointing (Chen et al. 2016): keep the input of a block, and compute its inside again when the
backward pass comes to it. A third more arithmetic; the memory of one block in place of all."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.models.layers.batch_statistics import frozen_running_statistics


def recomputed(block: nn.Module, x: Tensor, **arguments: Any) -> Tensor:
    """`block(x, **arguments)`, whose inside the backward pass computes again. The block draws no random numbers.

    Autocast is as it was at the call. Running averages of batch norms move once, at the call.
    """
    output: Tensor = checkpoint(
        block,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing in a block is random: augmentation and dropout come before it
        context_fn=lambda: _first_and_again(block),
        **arguments,
    )
    return output


def _first_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return contextlib.nullcontext(), frozen_running_statistics(block)
