"""A model small enough that reading files is what takes the time."""

from pathlib import Path

import torch

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.weights.checkpoint import save_checkpoint

PREPROCESS = Preprocess(32)


def tiny_clip() -> ImageModel:
    """Return a CLIP of random weights, the same at every call: 32 pixels a side, 16 dimensions."""
    torch.manual_seed(0)
    architecture = Architecture(
        embed_dim=16,
        image=VisionTransformer(resolution=32, patch=16, width=64, layers=1),
        text=TextTransformer(width=64, layers=1, context_length=32, embedding_width=8),
    )
    return build_model(architecture).eval()


def tiny_checkpoint(folder: Path) -> Path:
    """Write `tiny_clip` as a checkpoint."""
    return save_checkpoint(folder, tiny_clip(), config.plain(PREPROCESS))
