"""An exponential moving average of the weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

The average of the last steps lies nearer to the middle of the valley that the weights wander about in, and usually
measures better than they do, most of all before the learning rate has fallen.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from diptych.errors import CheckpointError, SettingsError
from diptych.training.parallel import assign, local
from diptych.weights.interpolation import misfits


class Ema:
    """average <- average + (1 - decay) * (weights - average), after each step, in float32.

    It starts as the weights are. For the first steps the decay is lower, min(decay, (1 + step) / (10 + step)) as
    TensorFlow's ExponentialMovingAverage has it, or the first weights, which are noise, would stay in the average
    for the whole of a short run. Buffers (running statistics of batch norms) are averages already, and are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise SettingsError(
                f"[training] ema = {decay}: a decay is at least 0 and below 1, such as 0.9999"
            )
        self.decay = decay
        self._average = {
            name: value.detach().to(torch.float32, copy=True) for name, value in model.named_parameters()
        }
        self._buffers = {name: value.detach().clone() for name, value in model.named_buffers()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after an optimizer step. step: how many steps have been done, this one included."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(
            [local(value) for value in self._average.values()],
            [local(weights[name].detach()).float() for name in self._average],
            1 - decay,
        )
        buffers = dict(model.named_buffers())
        for name, value in self._buffers.items():
            value.copy_(buffers[name])

    def state(self) -> dict[str, Tensor]:
        """Return the averages and the buffers, by the model's names for them; not copies."""
        return {**self._average, **self._buffers}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; the tensors are whole, also where the model is sharded.

        Raises CheckpointError, and changes nothing, where names or shapes differ.
        """
        own = self.state()
        if wrong := misfits(own, tensors):
            raise CheckpointError(
                f"the saved average of the weights does not fit this model: {', '.join(wrong[:10])} missing, not "
                "expected, or of another shape; resume with the recipe that the run was started with"
            )
        for name, value in own.items():
            assign(value, tensors[name])

    @contextlib.contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Give a context in which `model` has the averaged weights, for evaluation or saving.

        Afterwards it has its own again, to the bit. Costs the memory of one more copy of the weights meanwhile.
        """
        own = [*model.named_parameters(), *model.named_buffers()]
        before = [value.detach().clone() for _, value in own]
        averaged = self.state()
        try:
            # Copied into place: compiled graphs, shards and optimizers hold on to the storage.
            with torch.no_grad():
                for name, value in own:
                    value.copy_(averaged[name])
            yield
        finally:
            with torch.no_grad():
                for (_, value), kept in zip(own, before, strict=True):
                    value.copy_(kept)
