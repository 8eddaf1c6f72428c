"""A CLIP of a few thousand weights, and the files that others would keep it in."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, ModifiedResNet, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.weights.foreign.openai import openai_layout
from diptych.weights.foreign.plain_files import AssumedWarning
from diptych.weights.formats import load_path

TEXT = TextTransformer(width=64, layers=2, vocab_size=100, context_length=12)
PATCHES = VisionTransformer(resolution=32, patch=8, width=64, layers=2)
STAGES = ModifiedResNet(resolution=64, layers=(1, 2, 1, 1), width=8)
VIT = Architecture(embed_dim=16, image=PATCHES, text=TEXT)
RESNET = Architecture(embed_dim=16, image=STAGES, text=TEXT)


def small_clip(architecture: Architecture = VIT, seed: int = 0) -> ImageModel:
    """A model in evaluation mode."""
    torch.manual_seed(seed)
    return build_model(architecture).eval()


def openai_state(model: ImageModel) -> dict[str, Tensor]:
    """Its weights under OpenAI's names."""
    layout = openai_layout("")
    return {layout(name).names[0]: value for name, value in model.state_dict().items()}


def save(content: Any, path: Path, **options: Any) -> Path:
    """`torch.save`, which only the tests may use."""
    torch.save(content, path, **options)
    return path


def load_stated(path: Path) -> tuple[ImageModel, Preprocess]:
    """A file of weights, with the activation stated and what is assumed beside it accepted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumedWarning)
        return load_path(path, "quick_gelu")


def same_weights(one: ImageModel, other: ImageModel) -> bool:
    """To the bit, names and order included."""
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
