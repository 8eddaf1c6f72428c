"""Mixed precision: autocast around float32 weights, and the loss scale that float16 needs (Micikevicius et al. 2017).

Autocast runs matrix products and convolutions in half precision; norms, sums and the loss stay in float32. bfloat16
has the range of float32. The smallest numbers of float16 are 6e-8, below which gradients vanish: its loss is
multiplied by a scale before the backward pass, and its gradients are divided by it afterwards.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16", "float16"]

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# As torch.amp.GradScaler has them.
_FIRST_SCALE = 2.0**16
_GROWTH_INTERVAL = 2_000  # steps without an overflow before the scale doubles


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """Give the context in which a model with float32 weights computes in `precision`; float32 switches autocast off.

    device_type: "cpu", "cuda" and so on.
    """
    return torch.autocast(device_type, _HALF.get(precision), enabled=precision != "float32")


def loss_scale(precision: Precision) -> "LossScale":
    """Return a dynamic scale for float16; for the others 1, which changes nothing and stays."""
    return LossScale(_FIRST_SCALE, _GROWTH_INTERVAL) if precision == "float16" else LossScale(1.0, None)


class LossScale:
    """What the loss is multiplied by, a power of two, so that no gradient is rounded by it.

    One step: `scaled` on the loss, at the loss stage alone (the gradients of cached features carry the scale into
    the towers); the backward pass; `unscale`; the norm and its clipping; then, where all gradients are finite, the
    update and `succeeded`, else no update and `overflowed`. Every process must decide on the same norm.

    The rule is torch.amp.GradScaler's: half after an overflow, double after `growth_interval` steps in a row without
    one. Unlike there the scale never falls below 1, where an overflow is no longer the scale's fault.
    """

    def __init__(self, scale: float, growth_interval: int | None) -> None:
        self.scale = scale
        self.growth_interval = growth_interval  # steps; the scale never grows when none
        self.good_steps = 0  # since the scale changed

    def scaled(self, loss: Tensor) -> Tensor:
        """Return what the backward pass starts from. loss: float32."""
        return loss * self.scale

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients of `parameters`, in place. What overflowed stays infinite or not a number."""
        if self.scale == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(1 / self.scale)

    def succeeded(self) -> None:
        """Count a step whose gradients were finite."""
        self.good_steps += 1
        if self.good_steps == self.growth_interval:
            self.scale *= 2
            self.good_steps = 0

    def overflowed(self) -> bool:
        """Count a step that was skipped; whether a lower scale may cure it.

        False where the scale is 1 already: then the loss or the gradient itself is not finite.
        """
        curable = self.scale > 1
        self.scale = max(1.0, self.scale / 2)
        self.good_steps = 0
        return curable

    def state(self) -> dict[str, float]:
        """Return two numbers, for the checkpoint."""
        return {"loss_scale": self.scale, "loss_scale_good_steps": self.good_steps}

    def load(self, values: Mapping[str, float]) -> None:
        """Restore what `state` returned; other keys are not looked at."""
        self.scale = float(values["loss_scale"])
        self.good_steps = int(values["loss_scale_good_steps"])
