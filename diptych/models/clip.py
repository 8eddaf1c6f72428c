"""CLIP: an image tower, a text tower, and one learned temperature (Radford et al. 2021)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.bag_of_words import BagOfWords
from diptych.models.image_model import ImageModel, ImageTower
from diptych.models.layers.nonlinear_head import NonlinearHead
from diptych.models.text_transformer import TextTransformer

TextTower = TextTransformer | BagOfWords

MAX_LOGIT_SCALE = math.log(100)  # "to prevent scaling the logits by more than 100", section 2.5


class CLIP(ImageModel):
    """Two towers that map pixels and tokens into one space of `architecture.embed_dim` dimensions."""

    description = "a CLIP"
    commands = (
        "`diptych evaluate zero-shot`, `diptych index` and `diptych search` use this model's embeddings"
    )
    embeds_texts = True

    visual: ImageTower
    text: TextTower
    logit_scale: nn.Parameter  # log of 1 / temperature: ()
    logit_bias: nn.Parameter | None  # of logits that are for a sigmoid each, not for a softmax (SigLIP): ()
    image_head: NonlinearHead | None  # after the image tower (ConVIRT)
    text_head: NonlinearHead | None

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length."""
        encoded: Tensor = self.visual(self.checked(pixels))
        return encoded if self.image_head is None else self.image_head(encoded)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length."""
        encoded: Tensor = self.text(tokens)
        return encoded if self.text_head is None else self.text_head(encoded)

    def text_tokens(self, tokens: Tensor) -> Tensor:
        """Return every token of the text tower, before the projection: (batch, tokens, width)."""
        return self.text.tokens(tokens)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled cosine similarities: logits_per_image (images, texts), and its transpose logits_per_text."""
        return scaled_cosines(
            self.encode_image(pixels), self.encode_text(tokens), self.logit_scale, self.logit_bias
        )

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the logits from being scaled by more than 100; called after each optimizer step."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def scaled_cosines(
    image: Tensor, text: Tensor, logit_scale: Tensor, logit_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return exp(logit_scale) * cosine + logit_bias of every image and text: (images, texts), and its transpose."""
    logits = logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    if logit_bias is not None:
        logits = logits + logit_bias
    return logits, logits.T
