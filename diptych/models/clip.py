"""CLIP: an image tower, a text tower, and one learned temperature (Radford et al. 2021)."""

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.config import plain
from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Architecture
from diptych.models.bag_of_words import BagOfWords
from diptych.models.heads.captioner import Captioner
from diptych.models.heads.label_head import LabelHead
from diptych.models.heads.linear_classifier import ImageClassifier
from diptych.models.heads.word_predictor import WordPredictor
from diptych.models.layers.low_rank import add_low_rank
from diptych.models.layers.nonlinear_head import NonlinearHead
from diptych.models.layers.projection_head import ProjectionHead
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.shared_encoder import SharedEncoder
from diptych.models.text_transformer import TextTransformer
from diptych.models.vision_transformer import VisionTransformer

TextSide = (
    TextTransformer | BagOfWords | Captioner | WordPredictor | SharedEncoder | ProjectionHead | LabelHead
)

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
SIGMOID_LOGIT_SCALE = math.log(10)  # where the logits have a bias (Zhai et al. 2023, algorithm 1)
MAX_LOGIT_SCALE = math.log(100)  # "to prevent scaling the logits by more than 100", section 2.5

_WITHOUT_TEXTS = "the model was trained without texts (on images alone, or on labels) and embeds none"
_FEATURES = "use its `image_features`, as `diptych evaluate linear-probe` does, or a model with a text tower"

# The entry of a state dict's metadata that says what the weights are: JSON with "architecture" and "preprocessing".
DESCRIPTION = "diptych"

# Where the published checkpoints keep the text tower: at the top level, without a prefix.
_TOP_LEVEL_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


class CLIP(nn.Module):
    """Two towers that map pixels and tokens into one space of `architecture.embed_dim` dimensions."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        # How the images it was trained with were prepared, as plain values; None where nobody has said.
        self.preprocessing: Mapping[str, Any] | None = None
        self.visual = _image_tower(architecture)
        self.text = _text_tower(architecture)
        self.image_head: NonlinearHead | None = None
        self.text_head: NonlinearHead | None = None
        if architecture.heads == "nonlinear":
            self.image_head = NonlinearHead(architecture.embed_dim)
            self.text_head = NonlinearHead(architecture.embed_dim)
        biased = architecture.logit_bias is not None
        self.logit_scale = nn.Parameter(torch.tensor(SIGMOID_LOGIT_SCALE if biased else INITIAL_LOGIT_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(architecture.logit_bias)) if biased else None
        self.classifier: ImageClassifier | None = None
        if architecture.classifier is not None:
            embeds = architecture.classifier.reads == "embedding"
            width = architecture.embed_dim if embeds else _feature_width(architecture.image)
            self.classifier = ImageClassifier(architecture.classifier, width)
        if architecture.low_rank is not None:
            add_low_rank(self, architecture.low_rank)
        self.still: tuple[nn.Module, ...] = ()  # parts that stay in evaluation mode while the rest is trained
        self.register_load_state_dict_pre_hook(_accept_top_level_text)  # type: ignore[no-untyped-call]

    @property
    def context_length(self) -> int:
        """Tokens of the longest text, start and end token included."""
        return self.text.context_length

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the image tower takes its pixels."""
        dtype: torch.dtype = self.visual.conv1.weight.dtype
        return dtype

    def encode_image(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length.

        kept: (batch, any number) patches of each image that the tower sees (see `patch_dropout`); all when not
        given. Raises SettingsError where the tower has no patches, and where the model has no such space.
        """
        if isinstance(self.text, ProjectionHead | LabelHead):
            raise SettingsError(f"{_WITHOUT_TEXTS}, nor images beside them; {_FEATURES}")
        if kept is None:
            encoded: Tensor = self.visual(self._checked(pixels))
            if isinstance(self.text, SharedEncoder):
                return self.text.represent(encoded)
            return encoded if self.image_head is None else self.image_head(encoded)
        if not isinstance(self.visual, VisionTransformer):
            raise SettingsError(
                f"patch dropout: the image tower is a {type(self.visual).__name__}, which has no patches to leave "
                "out; set [training] patch_dropout = 0, or train a ViT"
            )
        seen: Tensor = self.visual(self._checked(pixels), kept)
        return seen if self.image_head is None else self.image_head(seen)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length.

        Raises SettingsError where the model predicts texts and embeds none.
        """
        self._check_embeds_texts()
        encoded: Tensor = self.text(tokens)
        return encoded if self.text_head is None else self.text_head(encoded)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: logits_per_image (images, texts), and its transpose logits_per_text.

        A model with a `logit_bias` adds it; its logits are for a sigmoid each, not for a softmax.
        """
        image = F.normalize(self.encode_image(pixels), dim=-1)
        text = F.normalize(self.encode_text(tokens), dim=-1)
        logits_per_image = self.logit_scale.exp() * image @ text.T
        if self.logit_bias is not None:
            logits_per_image = logits_per_image + self.logit_bias
        return logits_per_image, logits_per_image.T

    def classify(self, pixels: Tensor) -> Tensor:
        """Logits of the classes that the model was fine-tuned on, (batch, classes); their names are those of
        `classifier.classes`. Raises SettingsError where there are none.
        """
        if self.classifier is None:
            raise SettingsError(
                "the model has no classes of its own; fine-tune it on labels with `diptych finetune`, or compare "
                "images with texts"
            )
        reads_embedding = self.classifier.reads == "embedding"
        logits: Tensor = self.classifier(
            self.encode_image(pixels) if reads_embedding else self.image_features(pixels)
        )
        return logits

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """As in torch, and beside the tensors what they are, which `torch.save` keeps and `load_state_dict` ignores."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            said = {"architecture": plain(self.architecture), "preprocessing": self.preprocessing}
            destination._metadata[prefix.removesuffix(".")][DESCRIPTION] = json.dumps(said)

    def train(self, mode: bool = True) -> "CLIP":
        """As in torch, but for the parts in `still`."""
        super().train(mode)
        for part in self.still:
            part.train(False)
        return self

    def image_features(self, pixels: Tensor) -> Tensor:
        """The image tower's output before its projection, (batch, width): what a linear probe uses."""
        return self.visual.features(self._checked(pixels))

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """The pooled token, then the patches in reading order, before the projection.

        Returns (batch, 1 + patches, width).
        """
        return self.visual.tokens(self._checked(pixels))

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """Every token of the text tower, before the projection: (batch, tokens, width)."""
        self._check_embeds_texts()
        encoded: Tensor = self.text.tokens(tokens)  # type: ignore[operator]
        return encoded

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the logits from being scaled by more than 100; called after each optimiser step."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def _check_embeds_texts(self) -> None:
        if isinstance(self.text, ProjectionHead | LabelHead):
            raise SettingsError(f"{_WITHOUT_TEXTS}; {_FEATURES}")
        if isinstance(self.text, Captioner | WordPredictor):
            raise SettingsError(
                f"the model's text side is a {type(self.text).__name__}, which predicts texts from images and embeds "
                "none; use `model.text.scores`, or a model with a text tower"
            )

    def _checked(self, pixels: Tensor) -> Tensor:
        side = self.visual.input_resolution
        if pixels.shape[1:] != (3, side, side):
            raise SettingsError(
                f"pixels: expected (batch, 3, {side}, {side}), found {tuple(pixels.shape)}; use the preprocessing "
                "that came with the model, and stack its images into a batch"
            )
        return pixels.to(self.dtype)


def build_model(architecture: Architecture) -> CLIP:
    """A model with the paper's initialisation, in training mode and float32."""
    return CLIP(architecture)


def _image_tower(architecture: Architecture) -> VisionTransformer | ModifiedResNet:
    if isinstance(architecture.image, architectures.VisionTransformer):
        return VisionTransformer(architecture.image, architecture.embed_dim, architecture.activation)
    return ModifiedResNet(architecture.image, architecture.embed_dim)


def _text_tower(architecture: Architecture) -> TextSide:
    if isinstance(architecture.text, architectures.ProjectionHead):
        return ProjectionHead(architecture.text, _feature_width(architecture.image))
    if isinstance(architecture.text, architectures.LabelHead):
        return LabelHead(architecture.text, _feature_width(architecture.image))
    if isinstance(architecture.text, architectures.SharedEncoder):
        return SharedEncoder(architecture.text, architecture.embed_dim)
    if isinstance(architecture.text, architectures.Captioner):
        return Captioner(architecture.text, architecture.embed_dim)
    if isinstance(architecture.text, architectures.WordPredictor):
        return WordPredictor(architecture.text, architecture.embed_dim)
    if isinstance(architecture.text, architectures.TextTransformer):
        return TextTransformer(architecture.text, architecture.embed_dim, architecture.activation)
    return BagOfWords(architecture.text, architecture.embed_dim)


def _feature_width(image: architectures.VisionTransformer | architectures.ModifiedResNet) -> int:
    return 32 * image.width if isinstance(image, architectures.ModifiedResNet) else image.width


def _accept_top_level_text(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Let `load_state_dict` take the published layout as well as our own."""
    for key in list(state_dict):
        if key.startswith(prefix) and key.removeprefix(prefix).startswith(_TOP_LEVEL_TEXT):
            state_dict[f"{prefix}text.{key.removeprefix(prefix)}"] = state_dict.pop(key)
