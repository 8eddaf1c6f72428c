"""Interpolate between models (WiSE-FT: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.errors import CheckpointError, SettingsError


def misfits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that only one of two models has; if there are none, of those of another shape."""
    return sorted(first.keys() ^ second.keys()) or [
        name for name, value in first.items() if value.shape != second[name].shape
    ]


def interpolate_weights(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return (1 - alpha) * first + alpha * second, tensor by tensor, as new tensors.

    At 0 and at 1 the result is the first and the second model, bit for bit, even if the other has infinities. Integers,
    such as a batch norm's counter, are not interpolated: they are the second model's, except at 0. The running averages
    of batch norms are interpolated, and do not fit the interpolated weights: see `estimate_statistics`.

    Raises:
        SettingsError: alpha is not within 0..1.
        CheckpointError: the models have other tensors, or other shapes.
    """
    if not 0 <= alpha <= 1:
        raise SettingsError(f"alpha = {alpha}; expected the fraction of the fine-tuned weights, 0..1")
    if wrong := misfits(first, second):
        raise CheckpointError(
            f"the two models cannot be interpolated: {', '.join(wrong[:5])} occur in only one, or differ in "
            "shape; both must have one architecture, with the same classes in the same order"
        )
    if alpha == 0:
        return {name: value.detach().clone() for name, value in first.items()}
    if alpha == 1:
        return {name: value.detach().clone() for name, value in second.items()}
    return {
        name: torch.lerp(value.detach(), second[name].detach().to(value.dtype), alpha)
        if value.is_floating_point()
        else second[name].detach().clone()
        for name, value in first.items()
    }
