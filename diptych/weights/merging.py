"""Merge low-rank updates into the weights that they update."""

from dataclasses import replace

import torch
from torch import Tensor

from diptych.models.image_model import ImageModel
from diptych.weights.assembly import lay_out


@torch.no_grad()
def merge_low_rank(model: ImageModel) -> ImageModel:
    """Return a copy of the model with its low-rank updates merged into the weights.

    The copy is built anew, because PyTorch keeps the parametrized attribute in a class that copies share.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        owner, inside, rest = name.partition(".parametrizations.")
        tensor, _, kind = rest.partition(".")
        if not inside:
            state[name] = value.detach().clone()
        elif kind == "original":
            state[f"{owner}.{tensor}"] = getattr(model.get_submodule(owner), tensor).detach().clone()
    plain = lay_out(replace(model.architecture, low_rank=None))
    plain.load_state_dict(state, assign=True)
    return plain.train(model.training)
