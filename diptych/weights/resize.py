"""Change the resolution of a model: its weights, with the position embeddings of the image tower resized."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.weights.assembly import lay_out


def at_resolution(model: ImageModel, resolution: int) -> ImageModel:
    """Return `model` for images of `resolution` pixels per side; the same object if it has that resolution.

    The position embeddings are resized as in open_clip. The other weights are shared with `model`. Raises
    `SettingsError` for a resolution that the image tower cannot have.
    """
    size = model.architecture.image
    if resolution == size.resolution:
        return model
    stride = size.stride
    if resolution < stride or resolution % stride:
        usable = max(1, round(resolution / stride)) * stride
        raise SettingsError(
            f"resolution: expected a multiple of the model's stride {stride}, found {resolution}; try {usable}"
        )
    architecture: Architecture = dataclasses.replace(
        model.architecture, image=dataclasses.replace(size, resolution=resolution)
    )
    resized = lay_out(architecture)
    state = model.state_dict()
    name = next(key for key in state if key.startswith("visual.") and key.endswith("positional_embedding"))
    state[name] = resize_grid(state[name], resolution // stride)
    resized.load_state_dict(state, assign=True)
    return resized.train(model.training)


def resize_grid(positions: Tensor, side: int) -> Tensor:
    """Resize position embeddings to a grid of `side` x `side` patches: bicubic and antialiased.

    positions: (1 + n * n, width), the class token's first, which does not change. Returns (1 + side * side, width) in
    the same precision.
    """
    first, grid = positions[:1], positions[1:]
    old_side = round(len(grid) ** 0.5)
    planes = grid.float().T.reshape(1, -1, old_side, old_side)
    resized = F.interpolate(planes, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, resized[0].flatten(1).T.to(positions.dtype)])
