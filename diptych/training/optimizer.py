"""AdamW as CLIP was trained with it (Loshchilov and Hutter 2017; Radford et al. 2021, section 2.5)."""

import torch
from torch import nn

from diptych.training.settings import OptimizerSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Two groups of parameters: decay for matrices, none for gains, biases and the temperature."""
    decayed, kept = decay_groups(model)
    groups = [
        {"params": list(decayed.values()), "weight_decay": settings.weight_decay},
        {"params": list(kept.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True
    )


def decay_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The parameters that decay, and those that do not: of one dimension or none."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    decayed = {name: value for name, value in trained.items() if value.ndim > 1}
    kept = {name: value for name, value in trained.items() if value.ndim <= 1}
    return decayed, kept
