"""AdamW as CLIP was trained with it (Loshchilov and Hutter 2017; Radford et al. 2021, section 2.5).

Each group of parameters carries `lr_scale`: the engine sets `group["lr"] = rate * group["lr_scale"]` before a step.
The state is a mapping from each parameter to "step", "exp_avg" and "exp_avg_sq", in float32 and in bfloat16.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from diptych.errors import SettingsError
from diptych.models.heads.label_head import LabelHead
from diptych.models.layers.blocks import distances_from_top
from diptych.training.optim.lars import LARS
from diptych.training.optim.optimizer_settings import AdamWSettings, LarsSettings, OptimizerSettings
from diptych.training.parallel import local

_SLICE = 1 << 22  # elements that are widened to float32 at a time: 16 MiB for each of about six tensors
_MASK = 2**32 - 1


def build_optimizer(model: nn.Module, settings: OptimizerSettings, seed: int = 0) -> torch.optim.Optimizer:
    """Return a fused AdamW over `parameter_groups`; for bfloat16 moments a `CompactAdamW`, which rounds with `seed`.

    Or LARS, whose momentum is in float32.
    """
    groups = parameter_groups(model, settings)
    if isinstance(settings, LarsSettings):
        return LARS(groups, momentum=settings.momentum, trust=settings.trust)
    assert isinstance(settings, AdamWSettings)
    if settings.moments == "bfloat16":
        return CompactAdamW(groups, betas=settings.betas, eps=settings.epsilon, seed=seed)
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True
    )


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Return groups of what decays and what does not, at each distance from the top of its tower.

    Gains, biases and the temperature, which have one dimension or none, do not decay. A parameter that lies d
    blocks from the top learns at `layer_decay ** d` of the rate (Clark et al. 2020; Bao et al. 2021, BEiT).
    `numbers` are the indices of a group's parameters in the model, however they are grouped.
    """
    lars = isinstance(settings, LarsSettings)
    if not 0 < settings.layer_decay <= 1:
        raise SettingsError(
            f"[optimizer] layer_decay = {settings.layer_decay}: above 0, and at most 1, which is the same rate for all"
        )
    distances = distances_from_top(model)
    # LARS was trained with the head of the labels as it does gains and biases: a head of zeros has no size to adapt to.
    free = {id(head.weight) for head in model.modules() if isinstance(head, LabelHead)} if lars else set()
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for number, (name, value) in enumerate(model.named_parameters()):
        if not value.requires_grad:
            continue
        scale = settings.layer_decay ** distances[name]
        matrix = value.ndim > 1 and id(value) not in free
        decay = settings.weight_decay if matrix else 0.0
        group = groups.setdefault(
            # Fused updates take sharded parameters or whole ones, not both at once.
            (scale, decay if matrix else -1.0, isinstance(value, DTensor)),
            {
                "params": [],
                "numbers": [],
                "weight_decay": decay,
                "adapted": matrix,
                "lr": settings.learning_rate * scale,
                "lr_scale": scale,
            },
        )
        group["params"].append(value)
        group["numbers"].append(number)
    return list(groups.values())


class CompactAdamW(torch.optim.Optimizer):
    """AdamW that keeps its two averages in bfloat16, rounded stochastically: half the memory of the state.

    The paper keeps "half-precision Adam statistics" (Radford et al. 2021, section 2.5, after Dhariwal et al. 2020,
    whose code has float16 with one scale a tensor). bfloat16 has float32's range, so that no scale is needed (its
    maximum would have to be agreed on between shards) and no small second moment flushes to zero, which would make
    the largest steps of the smallest gradients. It has 8 bits of precision: an average with beta2 = 0.999 moves by
    less than half of its last bit, and rounded to the nearest it would never fall again. So a number is
    rounded up with the probability that makes the expectation exact.

    The noise is a hash of seed, step, parameter and element: a resumed run rounds as the unbroken one does. (A
    sharded parameter counts its own elements, so that another number of shards is another draw.) The update uses
    the averages before they are rounded. All arithmetic is in float32, elementwise.

    params: groups as `parameter_groups` makes them.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        betas: tuple[float, float],
        eps: float,
        seed: int,
    ) -> None:
        super().__init__(params, {"betas": betas, "eps": eps})
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        trained = [
            (value, number, group)
            for group in self.param_groups
            for value, number in zip(group["params"], group["numbers"], strict=True)
            if value.grad is not None
        ]
        for value, _, _ in trained:
            state = self.state[value]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=value.device)
                state["exp_avg"] = torch.zeros_like(value, dtype=torch.bfloat16)
                state["exp_avg_sq"] = torch.zeros_like(value, dtype=torch.bfloat16)
            state["step"] += 1
        if trained:
            # Read together: one wait for the device in place of one for each tensor.
            counts = torch.stack([self.state[value]["step"] for value, _, _ in trained]).tolist()
            for (value, number, group), count in zip(trained, counts, strict=True):
                self._update(value, group, int(count), number)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as torch does, which widens the state to the parameters' precision; make it bfloat16 again, exactly."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for kind in ("exp_avg", "exp_avg_sq"):
                state[kind] = state[kind].to(torch.bfloat16)

    def _update(self, parameter: Tensor, group: dict[str, Any], count: int, number: int) -> None:
        state = self.state[parameter]
        assert parameter.grad is not None
        shards = [
            local(tensor) for tensor in (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        ]
        if parameter.ndim == 0:
            shards = [shard.view(1) for shard in shards]
        row = max(1, shards[0][:1].numel())
        rows = max(1, _SLICE // row)
        parts = zip(*(torch.split(shard, rows) for shard in shards), strict=True)
        for part, (weight, gradient, average, average_sq) in enumerate(parts):
            wide = average.float(), average_sq.float()
            _adamw(weight, gradient, wide, group, count)
            key = (self._seed, count, number)
            noise = rounding_noise(weight.shape, weight.device, key, part * rows * row)
            average.copy_(stochastic_bfloat16(wide[0], noise & 0xFFFF))
            average_sq.copy_(stochastic_bfloat16(wide[1], (noise >> 16) & 0xFFFF))


def _adamw(
    weight: Tensor, gradient: Tensor, averages: tuple[Tensor, Tensor], group: dict[str, Any], count: int
) -> None:
    """Apply algorithm 2 of Loshchilov and Hutter in place. averages: of the gradient and its square, float32."""
    (beta1, beta2), rate = group["betas"], group["lr"]
    average, average_sq = averages
    gradient = gradient.float()
    average.lerp_(gradient, 1 - beta1)
    average_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = average_sq.sqrt().div_(math.sqrt(1 - beta2**count)).add_(group["eps"])
    weight.mul_(1 - rate * group["weight_decay"])
    weight.addcdiv_(average, denominator, value=-rate / (1 - beta1**count))


def stochastic_bfloat16(values: Tensor, noise: Tensor) -> Tensor:
    """Round `values`, float32 and finite, to a neighbour in bfloat16, so that the expectation is the value.

    noise: int32 of the same shape, uniform in 0..65535. What bfloat16 can hold stays as it is.
    """
    bits = values.view(torch.int32) + noise
    return bits.bitwise_and_(-65_536).view(torch.float32).to(torch.bfloat16)


def rounding_noise(shape: torch.Size, device: torch.device, key: tuple[int, ...], first: int = 0) -> Tensor:
    """Return 32 random bits for each element, int32: a hash of `key` and the element's index in reading order.

    first: the number of the first element, fewer than 2^31.

    A 32-bit finaliser (Wellons 2018, "lowbias32") of the number, with half of the key added before and the other half
    between its multiplications.
    """
    before, between = _key_halves(key)
    bits = torch.arange(first, first + shape.numel(), dtype=torch.int32, device=device).view(shape)
    bits += before
    bits ^= (bits >> 16) & 0xFFFF
    bits *= 0x7FEB352D
    bits ^= between
    bits ^= (bits >> 15) & 0x1FFFF
    bits *= 0x846CA68B - 2**32
    return bits.bitwise_xor_((bits >> 16) & 0xFFFF)


def _key_halves(key: tuple[int, ...]) -> tuple[int, int]:
    """Return two signed 32-bit numbers; each part of the key changes both: splitmix64 of them in turn."""
    state = 0
    for part in key:
        state = ((state ^ part) + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    low, high = state & _MASK, state >> 32
    return low - 2**31, high - 2**31
