"""The sizes of every model, as data.

The nine published architectures follow the tables of Radford et al. (2021) and the shapes of the published
checkpoints; `build_model` in `clip.py` makes a model of any of them.
"""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True, kw_only=True)
class VisionTransformer:
    """Dosovitskiy et al. (2020), with CLIP's layer norm before the first block."""

    resolution: int  # pixels a side
    patch: int  # pixels a side; divides the resolution
    width: int  # of a token
    layers: int
    heads: int | None = None  # width / 64 when not given, as in every published model


@dataclass(frozen=True, kw_only=True)
class ModifiedResNet:
    """ResNet-D stem, anti-aliased strides, attention pooling (Radford et al. 2021, section 2.4)."""

    resolution: int  # pixels a side; a multiple of the total stride
    layers: tuple[int, int, int, int]  # bottleneck blocks of each stage
    width: int  # channels of the stem; the last stage has 32 times as many
    heads: int | None = None  # of the attention pool; width / 2 when not given
    stem_stride: Literal[2, 4] = 4  # 2 keeps more of a small picture: total stride 16 in place of 32


@dataclass(frozen=True, kw_only=True)
class TextTransformer:
    """Causal transformer whose feature is the end token's (Radford et al. 2021, section 2.4)."""

    width: int
    layers: int
    heads: int | None = None  # width / 64 when not given
    context_length: int = 77  # tokens, start and end token included
    vocab_size: int = 49_408
    positions: Literal["learned", "sinusoidal"] = "learned"
    embedding_width: int | None = None  # of a token before a linear map to `width`; the same when not given


@dataclass(frozen=True, kw_only=True)
class BagOfWords:
    """Mean of the token embeddings: the CBOW text encoder that CLIP's Figure 3 allows (Mikolov et al. 2013)."""

    width: int
    context_length: int = 77
    vocab_size: int = 49_408


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One CLIP: an image tower, a text tower, and the width of the space in which they meet."""

    embed_dim: int
    image: VisionTransformer | ModifiedResNet
    text: TextTransformer | BagOfWords
    activation: Activation = "quick_gelu"  # of every transformer block; OpenAI's models have quick_gelu
    logit_bias: float | None = None  # the first value of a learned bias of the logits, as SigLIP has it (-10)


def _text(width: int) -> TextTransformer:
    return TextTransformer(width=width, layers=12)


_RN = ModifiedResNet
_VIT = VisionTransformer

# Names, resolutions and widths of the published checkpoints.
PUBLISHED: dict[str, Architecture] = {
    "RN50": Architecture(
        embed_dim=1024, image=_RN(resolution=224, layers=(3, 4, 6, 3), width=64), text=_text(512)
    ),
    "RN101": Architecture(
        embed_dim=512, image=_RN(resolution=224, layers=(3, 4, 23, 3), width=64), text=_text(512)
    ),
    "RN50x4": Architecture(
        embed_dim=640, image=_RN(resolution=288, layers=(4, 6, 10, 6), width=80), text=_text(640)
    ),
    "RN50x16": Architecture(
        embed_dim=768, image=_RN(resolution=384, layers=(6, 8, 18, 8), width=96), text=_text(768)
    ),
    "RN50x64": Architecture(
        embed_dim=1024, image=_RN(resolution=448, layers=(3, 15, 36, 10), width=128), text=_text(1024)
    ),
    "ViT-B/32": Architecture(
        embed_dim=512, image=_VIT(resolution=224, patch=32, width=768, layers=12), text=_text(512)
    ),
    "ViT-B/16": Architecture(
        embed_dim=512, image=_VIT(resolution=224, patch=16, width=768, layers=12), text=_text(512)
    ),
    "ViT-L/14": Architecture(
        embed_dim=768, image=_VIT(resolution=224, patch=14, width=1024, layers=24), text=_text(768)
    ),
    "ViT-L/14@336px": Architecture(
        embed_dim=768, image=_VIT(resolution=336, patch=14, width=1024, layers=24), text=_text(768)
    ),
}
