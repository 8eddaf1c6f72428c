"""Random models and inputs for comparisons, small and large."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diptych.models.architectures import (
    PUBLISHED,
    Architecture,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel

PIXELS_SEED, TOKENS_SEED = 1, 2


def small(name: str) -> Architecture:
    """A published architecture with its own numbers of layers and heads above one, and tiny widths."""
    whole = PUBLISHED[name]
    assert isinstance(whole.text, TextTransformer)
    if isinstance(whole.image, VisionTransformer):
        patch = whole.image.patch
        image: VisionTransformer | ModifiedResNet = VisionTransformer(
            resolution=whole.image.resolution // patch // 3 * patch,
            patch=patch,
            width=whole.image.width // 6 // 64 * 64,
            layers=whole.image.layers,
        )
    else:
        image = ModifiedResNet(resolution=96, layers=whole.image.layers, width=whole.image.width // 8)
    text = TextTransformer(width=128, layers=whole.text.layers)
    return Architecture(embed_dim=whole.embed_dim // 8, image=image, text=text, activation=whole.activation)


@torch.no_grad()
def random_model(architecture: Architecture, dtype: torch.dtype = torch.float32) -> ImageModel:
    """A model in which no weight is zero or one, so that a lost or a swapped one shows in the features."""
    torch.manual_seed(0)
    model = build_model(architecture)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.1)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.normal_(std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in model.named_parameters():
        if name.endswith("in_proj_bias"):
            parameter.normal_(std=0.1)
    return model.to(dtype).eval()


def random_inputs(
    model: ImageModel, dtype: torch.dtype = torch.float32, batch: int = 2
) -> tuple[Tensor, Tensor]:
    """Pixels, and texts of different lengths whose padding is zero."""
    n = model.visual.input_resolution
    pixels = torch.randn(batch, 3, n, n, generator=torch.Generator().manual_seed(PIXELS_SEED)).to(dtype)
    ids = torch.randint(1, 49_406, (batch, 77), generator=torch.Generator().manual_seed(TOKENS_SEED))
    ids[:, 0] = 49_406
    for row, length in enumerate((9, 76, 1)[:batch]):
        ids[row, length] = 49_407
        ids[row, length + 1 :] = 0
    return pixels, ids


@dataclass(frozen=True)
class Features:
    """Of images and of texts, (batch, embed_dim)."""

    image: Tensor
    text: Tensor


@torch.inference_mode()
def features(model: ImageModel, dtype: torch.dtype = torch.float32) -> Features:
    """Ours for the inputs above."""
    pixels, tokens = random_inputs(model, dtype)
    return Features(model.encode_image(pixels), model.encode_text(tokens))


def distance(found: Features, expected: Features) -> float:
    """The largest difference of a component, over the largest component."""
    return max(
        ((ours - theirs).abs().max() / theirs.abs().max()).item()
        for ours, theirs in ((found.image, expected.image), (found.text, expected.text))
    )
