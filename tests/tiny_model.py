"""A whole CLIP that is small enough for a test."""

import torch

from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.clip import CLIP

RESOLUTION = 16


def random_clip() -> CLIP:
    """Random weights, the same at every call: 16 pixels a side, 24 dimensions, the real vocabulary."""
    torch.manual_seed(0)
    architecture = Architecture(
        embed_dim=24,
        image=VisionTransformer(resolution=RESOLUTION, patch=8, width=32, layers=2, heads=2),
        text=TextTransformer(width=32, layers=2, heads=2),
    )
    model = build_model(architecture).eval()
    assert isinstance(model, CLIP)
    return model


def preprocessing() -> Preprocess:
    """The preprocessing of `random_clip`."""
    return Preprocess(resolution=RESOLUTION)
