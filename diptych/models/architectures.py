"""The sizes of every model, as data.

The nine published architectures follow the tables of Radford et al. (2021) and the shapes of the published
checkpoints; `build_model` in `building.py` makes a model of any of them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """What the blocks of a transformer may have otherwise than OpenAI's models; None is as these have it."""

    mlp_width: int | None = None  # inside an MLP; four times the width when not given
    activation: Activation | None = None  # the one of the whole model when not given
    epsilon: float | None = None  # of the layer norms; 1e-5 when not given
    layer_scale: float | None = None  # where learned factors after attention and MLP begin (CaiT); none


@dataclass(frozen=True, kw_only=True)
class VisionTransformer(Blocks):
    """Dosovitskiy et al. (2020), with CLIP's layer norm before the first block."""

    resolution: int  # pixels a side
    patch: int  # pixels a side; divides the resolution
    width: int  # of a token
    layers: int
    heads: int | None = None  # width / 64 when not given, as in every published model
    first_norm: bool | None = None  # a norm before the first block; there is one when not given
    pool: Literal["mean"] | None = None  # the mean of the patches; the class token when not given
    norm_after_pool: bool | None = None  # the last norm is the mean's; every patch's when not given
    positions: Literal["sinusoidal"] | None = None  # fixed ones, of rows and columns; learned when not given

    @property
    def stride(self) -> int:
        """Pixels a side of a cell; the resolution is a multiple."""
        return self.patch

    @property
    def patches(self) -> int:
        """Patches of an image, any of which can be left out."""
        return (self.resolution // self.patch) ** 2

    @property
    def feature_width(self) -> int:
        """Channels of the image features, before the projection."""
        return self.width


@dataclass(frozen=True, kw_only=True)
class ModifiedResNet:
    """ResNet-D stem, anti-aliased strides, attention pooling (Radford et al. 2021, section 2.4)."""

    patches: ClassVar[int] = 0  # no part of an image can be left out

    resolution: int  # pixels a side; a multiple of the total stride
    layers: tuple[int, int, int, int]  # bottleneck blocks of each stage
    width: int  # channels of the stem; the last stage has 32 times as many
    heads: int | None = None  # of the attention pool; width / 2 when not given
    stem_stride: Literal[2, 4] = 4  # 2 keeps more of a small image: total stride 16 in place of 32

    @property
    def stride(self) -> int:
        """Pixels a side of a cell; the resolution is a multiple."""
        return 8 * self.stem_stride

    @property
    def feature_width(self) -> int:
        """Channels of the image features, before the projection."""
        return 32 * self.width


@dataclass(frozen=True, kw_only=True)
class TextTransformer(Blocks):
    """Causal transformer whose feature is the end token's (Radford et al. 2021, section 2.4)."""

    width: int
    layers: int
    heads: int | None = None  # width / 64 when not given
    context_length: int = 77  # tokens, start and end token included
    vocab_size: int = 49_408
    positions: Literal["learned", "sinusoidal"] = "learned"
    embedding_width: int | None = None  # of a token before a linear map to `width`; the same when not given
    known: tuple[int, ...] = ()  # ids that have embeddings, all others sharing one; every id when not given
    causal: bool | None = None  # a token sees those before it alone, as when not given, or every one
    pool: Literal["first", "last"] | None = (
        None  # the token that is the feature; the end token when not given
    )
    end_id: int | None = None  # of the end token; the largest id of a text when not given
    projection: Literal["biased", "none"] | None = None  # a matrix without a bias when not given


@dataclass(frozen=True, kw_only=True)
class BagOfWords:
    """Mean of the token embeddings: the CBOW text encoder that CLIP's Figure 3 allows (Mikolov et al. 2013)."""

    width: int
    context_length: int = 77
    vocab_size: int = 49_408


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """Decoders that write the caption of an image (VirTex: Desai and Johnson 2021); as wide as `embed_dim`."""

    decoder_layers: int
    reads: Literal["forward", "both", "masked"] = "both"  # "forward" alone is a captioning language model
    heads: int | None = None  # embed_dim / 64, and at least one, when not given
    context_length: int = 77
    vocab_size: int = 49_408
    known: tuple[
        int, ...
    ] = ()  # ids that are read and written, all others being one; every id when not given


@dataclass(frozen=True, kw_only=True)
class WordPredictor:
    """One logit a word of the vocabulary: predicts which words the caption of an image has."""

    word_loss: Literal["softmax", "sigmoid"]  # one distribution over the words, or a yes or no for each
    context_length: int = 77
    vocab_size: int = 49_408
    known: tuple[int, ...] = ()  # as of a captioner


@dataclass(frozen=True, kw_only=True)
class SharedEncoder:
    """Encoders of words and sounds, and layers that all modalities share (SHRe: Aytar et al. 2017)."""

    # Widths of the shared layers before the classes, the last embed_dim; twice 4,096 in the paper.
    hidden: tuple[int, ...]
    classes: int  # of the teacher; 1,000 in the paper
    width: int  # channels of the words' and the sounds' convolutions; 300 in the paper
    convolutions: int = 3  # over time, in each of the two
    sound_bands: int = 0  # frequency bands of the spectrograms; 0: no sounds
    sound_frames: int = 32  # of 16 ms each; longer sounds are cut
    context_length: int = 32
    vocab_size: int = 49_408


@dataclass(frozen=True, kw_only=True)
class ProjectionHead:
    """In place of a text side: the head between image features and the loss of two views (Chen et al. 2020)."""

    head_layers: int  # linear ones: 2 in SimCLR, 3 in SimCLRv2
    head_dim: int = 128  # of the space of the loss
    context_length: int = 8  # texts are read and not used
    vocab_size: int = 49_408


@dataclass(frozen=True, kw_only=True)
class LabelHead:
    """In place of a text side: one logit a class (ViT: Dosovitskiy et al. 2020, section 3.1)."""

    classes: tuple[
        str, ...
    ]  # their names, in the order of the logits; none: those found in the training data
    kept_layers: int | None = None  # of a projection head, below the logits: 1 where SimCLRv2 is fine-tuned

    context_length: ClassVar[int] = 1  # a text is the index of its class

    @property
    def vocab_size(self) -> int:
        """As many as there are classes."""
        return len(self.classes)


# Captioner and WordPredictor predict a text and embed none; ProjectionHead and LabelHead have none.
TextSide: TypeAlias = (
    TextTransformer | BagOfWords | Captioner | WordPredictor | SharedEncoder | ProjectionHead | LabelHead
)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A linear layer on images, beside the text tower: what fine-tuning on labels adds to a CLIP."""

    classes: tuple[str, ...]  # their names, in the order of the logits
    # What it sees: the embedding in the space shared with texts, brought to unit length; or the features before the
    # projection, as they are.
    reads: Literal["embedding", "features"]
    several: bool = False  # an image may be of any number of classes: a yes or no for each


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Updates of small rank beside the weights of blocks, while a model is fine-tuned (LoRA: Hu et al. 2021)."""

    rank: int
    scale: float = 2.0  # of the updates: alpha / r in the paper
    towers: tuple[Literal["image", "text"], ...] = ("image",)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One CLIP: an image tower, a text tower, and the width of the space in which they meet."""

    embed_dim: int
    image: VisionTransformer | ModifiedResNet
    text: TextSide
    activation: Activation = "quick_gelu"  # of every transformer block; OpenAI's models have quick_gelu
    logit_bias: float | None = None  # the first value of a learned bias of the logits, as SigLIP has it (-10)
    heads: Literal["nonlinear"] | None = None  # a ReLU and a second linear map after each tower's (ConVIRT)
    classifier: Classifier | None = None
    low_rank: LowRank | None = None  # only while a model is fine-tuned; the result has it merged

    @property
    def label_head(self) -> LabelHead | None:
        """The label head that stands in place of a text side, if one does."""
        return self.text if isinstance(self.text, LabelHead) else None

    @property
    def text_transformer(self) -> TextTransformer | None:
        """The text transformer, if the text side is one."""
        return self.text if isinstance(self.text, TextTransformer) else None


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


def _labelled(resolution: int, patch: int, width: int, layers: int) -> Architecture:
    image = VisionTransformer(resolution=resolution, patch=patch, width=width, layers=layers)
    return Architecture(embed_dim=width, image=image, text=LabelHead(classes=()), activation="gelu")


# The sizes of Dosovitskiy et al. (2020), table 1, for training with labels. Huge has heads of 80 channels.
LABELLED: dict[str, Architecture] = {
    "ViT-Base/16": _labelled(224, 16, 768, 12),
    "ViT-Large/16": _labelled(224, 16, 1024, 24),
    "ViT-Huge/14": Architecture(
        embed_dim=1280,
        image=_VIT(resolution=224, patch=14, width=1280, layers=32, heads=16),
        text=LabelHead(classes=()),
        activation="gelu",
    ),
}
