"""LARS: momentum whose step in each layer is a share of the layer's own size (You et al. 2017, algorithm 1).

In the form that SimCLR was trained with: decay joins the gradient, the learning rate stands inside the momentum, and
gains, biases and other parameters of one dimension or none are neither decayed nor adapted.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from diptych.distributed import sum_over_processes
from diptych.training.parallel import local


class LARS(torch.optim.Optimizer):
    """v <- momentum v + rate trust (gradient + decay weight); weight <- weight - v.

    trust = `trust` |weight| / |gradient + decay weight| for a parameter of two dimensions or more, and 1 for others and
    where either norm is 0. The norms are of the whole parameter, also where processes hold a part of it each.

    params: groups as `parameter_groups` makes them: what has one dimension or none comes with a decay of 0, and is not
    "adapted", as is the head of labels.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], *, momentum: float = 0.9, trust: float = 1e-3
    ) -> None:
        super().__init__(params, {"momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        trained = [
            (value, group)
            for group in self.param_groups
            for value in group["params"]
            if value.grad is not None
        ]
        directions = [
            local(value.grad).add(local(value), alpha=group["weight_decay"]) for value, group in trained
        ]
        ratios = _trust_ratios([value for value, _ in trained], directions)
        for (value, group), direction, ratio in zip(trained, directions, ratios, strict=True):
            state = self.state[value]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(value)
            adapted = (
                ratio * group["trust"] if group.get("adapted", value.ndim > 1) else torch.ones_like(ratio)
            )
            step = torch.where(ratio > 0, adapted, 1.0) * group["lr"]
            buffer = local(state["momentum_buffer"])
            buffer.mul_(group["momentum"]).add_(direction * step)
            local(value).sub_(buffer)


def _trust_ratios(parameters: list[Tensor], directions: list[Tensor]) -> Tensor:
    """Return |weight| / |direction| of each parameter, (parameters,); 0 where either is 0.

    directions: this process's parts.
    """
    squares = torch.stack(
        [
            torch.stack([_square(local(value)), _square(direction)])
            for value, direction in zip(parameters, directions, strict=True)
        ]
    )
    shards = torch.tensor([isinstance(value, DTensor) for value in parameters], device=squares.device)
    if shards.any():
        squares = torch.where(shards[:, None], sum_over_processes(squares * shards[:, None]), squares)
    weight, direction = squares.sqrt().unbind(dim=1)
    return torch.where((weight > 0) & (direction > 0), weight / direction.clamp(min=1e-38), 0.0)


def _square(value: Tensor) -> Tensor:
    # At least in float32: the sum of a million squares in float16 is infinite.
    wide = value if value.dtype == torch.float64 else value.float()
    return wide.square().sum()
