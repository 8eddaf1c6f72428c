"""Running averages of batch norms, where a batch goes through a network more than once in a step."""

import contextlib
from collections.abc import Iterator

from torch import nn
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
