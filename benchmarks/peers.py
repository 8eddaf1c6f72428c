"""The other implementations that the benchmarks compare with."""

import importlib
import logging
import sys
import types
import warnings
from typing import Any

from torch import nn

from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer

# For smoke runs.
TINY = Architecture(
    embed_dim=16,
    image=VisionTransformer(resolution=32, patch=16, width=64, layers=2),
    text=TextTransformer(width=64, layers=2, context_length=32),
)


def import_open_clip() -> Any:
    """open_clip, also where torchvision is a build for CUDA beside a torch for the CPU."""
    # torchvision checks for its compiled operators when it is imported; no benchmark needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    logging.getLogger().setLevel(logging.ERROR)  # it warns on every model that it makes without weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("open_clip")
        except ModuleNotFoundError as error:
            if error.name != "open_clip":
                raise
            raise SystemExit("this benchmark compares with open_clip: pip install open_clip_torch") from None


def open_clip_model(architecture: Architecture) -> nn.Module:
    """open_clip's own model of these sizes, which returns what its training script asks for."""
    open_clip = import_open_clip()
    image, text = architecture.image, architecture.text
    if not isinstance(image, VisionTransformer) or not isinstance(text, TextTransformer):
        raise TypeError("open_clip is compared with on transformers")
    model: nn.Module = open_clip.CLIP(
        embed_dim=architecture.embed_dim,
        vision_cfg=open_clip.CLIPVisionCfg(
            image_size=image.resolution,
            patch_size=image.patch,
            width=image.width,
            layers=image.layers,
            head_width=image.width // (image.heads or image.width // 64),
        ),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.width,
            layers=text.layers,
            heads=text.heads or text.width // 64,
        ),
        quick_gelu=architecture.activation == "quick_gelu",
        output_dict=True,
    )
    return model
