"""The model of "See, Hear, and Read" (Aytar et al. 2017): images, words and sounds under shared layers."""

from torch import Tensor

from diptych.models.clip import scaled_cosines
from diptych.models.image_model import ImageModel
from diptych.models.shared_encoder import SharedEncoder


class SharedModel(ImageModel):
    """An encoder for each modality, and the layers that all of them go through."""

    description = "an encoder of images, words and sounds"
    commands = (
        "`diptych evaluate zero-shot`, `diptych index` and `diptych search` use this model's embeddings"
    )
    embeds_texts = True

    text: SharedEncoder  # called so in checkpoints; it has the words, the sounds, and the shared layers

    @property
    def sound_encoder(self) -> SharedEncoder | None:
        """What encodes sounds; None where the model was trained without."""
        return self.text if self.text.sounds is not None else None

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length."""
        return self.text.represent(self.visual(self.checked(pixels)))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length."""
        encoded: Tensor = self.text(tokens)
        return encoded

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled cosine similarities: logits_per_image (images, texts), and its transpose logits_per_text."""
        return scaled_cosines(
            self.encode_image(pixels), self.encode_text(tokens), self.logit_scale, self.logit_bias
        )
