"""Convert a model to half precision, except for the parts that need the range or the digits of float32."""

import torch
from torch import nn

from diptych.models.image_model import ImageModel
from diptych.models.transformer import Attention

_PROJECTIONS = ("proj", "text_projection")


def to_half(model: ImageModel, dtype: torch.dtype) -> ImageModel:
    """Convert the matrix products of `model` to float16 or bfloat16, in place.

    As in the published files, convolutions, linear maps and projections are converted; norms, embeddings, positions
    and the logit scale stay in float32. So do a captioner, whose words depend on one another, and other substitutes
    of a text tower.
    """
    kept = set() if model.halves_text else set(model.text.modules())
    for module in model.modules():
        if module in kept:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
        if isinstance(module, Attention):
            module.in_proj_weight.data = module.in_proj_weight.data.to(dtype)
            module.in_proj_bias.data = module.in_proj_bias.data.to(dtype)
        for name in _PROJECTIONS:
            projection = getattr(module, name, None)
            if isinstance(projection, nn.Parameter):
                projection.data = projection.data.to(dtype)
    return model
