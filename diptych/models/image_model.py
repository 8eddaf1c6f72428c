"""What all models have: an image tower, and the calls of the original CLIP, each of them done or refused in words."""

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from diptych.config import plain
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.capabilities import ClassHead, PredictsTexts, WritesCaptions, lacks
from diptych.models.heads.linear_classifier import ImageClassifier
from diptych.models.layers.nonlinear_head import NonlinearHead
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.shared_encoder import SharedEncoder
from diptych.models.vision_transformer import VisionTransformer

ImageTower = VisionTransformer | ModifiedResNet

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
SIGMOID_LOGIT_SCALE = math.log(10)  # where the logits have a bias (Zhai et al. 2023, algorithm 1)

# The entry of a state dict's metadata that says what the weights are: JSON with "architecture" and "preprocessing".
DESCRIPTION = "diptych"

# Where the published checkpoints keep the text tower: at the top level, without a prefix.
_TOP_LEVEL_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


class ImageModel(nn.Module):
    """An image tower, and a text side that each subclass has of its own.

    Every model has the methods of a CLIP. One that it cannot do raises a `SettingsError` which says what is missing and
    which command does what the model can. The properties that may be None say what else a model can do.
    """

    description: str  # a noun phrase, for messages
    commands: str  # which commands use what the model can do, for messages
    embeds_texts: ClassVar[bool] = False
    halves_text: ClassVar[bool] = True  # whether the text side still works in half precision

    text: nn.Module

    def __init__(self, architecture: Architecture, visual: ImageTower, text: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        # How the images it was trained with were prepared, as plain values; None where nobody has said.
        self.preprocessing: Mapping[str, Any] | None = None
        self.visual = visual
        self.text = text
        # The files of every model hold a temperature; only where texts are embedded is it used.
        biased = architecture.logit_bias is not None
        self.logit_scale = nn.Parameter(torch.tensor(SIGMOID_LOGIT_SCALE if biased else INITIAL_LOGIT_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(architecture.logit_bias)) if biased else None
        # What `build_model` adds, where the architecture asks for it.
        self.image_head: NonlinearHead | None = None
        self.text_head: NonlinearHead | None = None
        self.classifier: ImageClassifier | None = None
        self.frozen_parts: tuple[nn.Module, ...] = ()  # stay in evaluation mode while the rest is trained
        self.register_load_state_dict_pre_hook(_accept_top_level_text)  # type: ignore[no-untyped-call]

    @property
    def context_length(self) -> int:
        """Tokens of the longest text, start and end token included."""
        return self.architecture.text.context_length

    @property
    def vocab_size(self) -> int:
        """Ids that a token may have."""
        return self.architecture.text.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the image tower takes its pixels."""
        return self.visual.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    @property
    def text_predictor(self) -> PredictsTexts | None:
        """What gives probabilities of texts."""
        return None

    @property
    def caption_writer(self) -> WritesCaptions | None:
        """What writes captions, left to right."""
        return None

    @property
    def sound_encoder(self) -> SharedEncoder | None:
        """What encodes sounds."""
        return None

    @property
    def class_head(self) -> ClassHead | None:
        """The last layer of a model that has learned classes from labels."""
        return self.classifier

    def image_features(self, pixels: Tensor) -> Tensor:
        """Return the image tower's output before its projection, (batch, width): what a linear probe uses."""
        return self.visual.features(self.checked(pixels))

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Return the pooled token, then the patches in reading order, before the projection.

        Their shape is (batch, 1 + patches, width).
        """
        return self.visual.tokens(self.checked(pixels))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length.

        Raises SettingsError for a model without such a space.
        """
        raise lacks(self, "embeds")

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length.

        Raises SettingsError for a model that embeds no texts.
        """
        raise lacks(self, "embeds texts")

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """Return every token of the text tower, before the projection: (batch, tokens, width)."""
        raise lacks(self, "embeds words")

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled cosine similarities: logits_per_image (images, texts), and its transpose logits_per_text."""
        raise lacks(self, "embeds texts")

    def class_features(self, pixels: Tensor) -> Tensor:
        """Return what the weights of `class_head` are multiplied with: (batch, width).

        Raises SettingsError for a model that has learned no classes from labels.
        """
        head, features = self._classifier_and_input(pixels)
        return head.seen(features)

    def classify(self, pixels: Tensor) -> Tensor:
        """Return the logits of the classes in `class_head.classes`: (batch, classes).

        Raises SettingsError for a model that has learned no classes from labels.
        """
        head, features = self._classifier_and_input(pixels)
        logits: Tensor = head(features)
        return logits

    def checked(self, pixels: Tensor) -> Tensor:
        """Return pixels in the precision of the image tower. Raises SettingsError for those of another shape."""
        side = self.visual.input_resolution
        if pixels.shape[1:] != (3, side, side):
            raise SettingsError(
                f"pixels: expected (batch, 3, {side}, {side}), found {tuple(pixels.shape)}; use the preprocessing "
                "that came with the model, and stack its images into a batch"
            )
        return pixels.to(self.dtype)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but for the parts in `frozen_parts`."""
        super().train(mode)
        for part in self.frozen_parts:
            part.train(False)
        return self

    def _classifier_and_input(self, pixels: Tensor) -> tuple[ImageClassifier, Tensor]:
        if self.classifier is None:
            raise lacks(self, "has classes")
        embeds = self.classifier.reads == "embedding"
        return self.classifier, self.encode_image(pixels) if embeds else self.image_features(pixels)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """As in torch, and beside the tensors what they are, which `torch.save` keeps and `load_state_dict` ignores."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            said = {"architecture": plain(self.architecture), "preprocessing": self.preprocessing}
            destination._metadata[prefix.removesuffix(".")][DESCRIPTION] = json.dumps(said)


def _accept_top_level_text(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Let `load_state_dict` take the published layout as well as our own."""
    for key in list(state_dict):
        if key.startswith(prefix) and key.removeprefix(prefix).startswith(_TOP_LEVEL_TEXT):
            state_dict[f"{prefix}text.{key.removeprefix(prefix)}"] = state_dict.pop(key)
