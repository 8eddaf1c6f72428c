"""The modality-specific encoders and the shared one of "See, Hear, and Read" (Aytar et al. 2017, section 3)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures


class SharedEncoder(nn.Module):
    """Words and sounds by convolutions over time, and the layers that images, words and sounds all go through.

    The words' embeddings are learned here, where the paper took word2vec's. An image enters the shared layers by its
    tower's output, of `embed_dim`, to which the words' and the sounds' encoders lead as well.
    """

    def __init__(self, size: architectures.SharedEncoder, embed_dim: int) -> None:
        super().__init__()
        if not size.hidden or size.hidden[-1] != embed_dim:
            raise SettingsError(
                f"[model.architecture.text] hidden = {list(size.hidden)}: modalities meet in the last of them; "
                f"make it embed_dim = {embed_dim}"
            )
        self.sound_frames, self.sound_bands = size.sound_frames, size.sound_bands
        self.words = WordEncoder(size.vocab_size, size.width, size.convolutions, embed_dim)
        self.sounds: SoundEncoder | None = None
        if size.sound_bands:
            self.sounds = SoundEncoder(size.sound_bands, size.width, size.convolutions, embed_dim)
        widths = (embed_dim, *size.hidden, size.classes)
        self.shared = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length."""
        return self.represent(self.words(tokens))

    def represent(self, encoded: Tensor) -> Tensor:
        """Take an encoder's output, (batch, embed_dim), to the last hidden layer, where modalities meet."""
        return self.layers(encoded)[-2]

    def encode_sound(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, frames, bands), of `log_mel`; returns (batch, embed_dim), not of unit length."""
        if self.sounds is None:
            raise SettingsError(
                "the model was trained without sounds; set [model.architecture.text] sound_bands"
            )
        return self.represent(self.sounds(sounds))

    def layers(self, encoded: Tensor) -> list[Tensor]:
        """Return every shared layer's output, each (batch, width): of hidden ones after their ReLU, then the logits."""
        found = []
        for number, layer in enumerate(self.shared):
            encoded = layer(encoded)
            if number < len(self.shared) - 1:
                encoded = F.relu(encoded)
            found.append(encoded)
        return found


class WordEncoder(nn.Module):
    """Embeddings of the words and convolutions over three neighbours, the strongest response of each channel."""

    def __init__(self, vocab_size: int, width: int, convolutions: int, out: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(convolutions))
        self.out = nn.Linear(width, out)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, length) ids, padded behind the end token, which is the largest; returns (batch, out).

        Start and end token are words like any other; what follows the end has no part.
        """
        end = tokens.argmax(dim=1, keepdim=True)
        inside = (torch.arange(tokens.shape[1], device=tokens.device) <= end)[:, None]  # (batch, 1, length)
        x = self.embedding(tokens).transpose(1, 2)
        for convolution in self.convolutions:
            # Beyond the end all is zero, as beyond the edge: a longer padding changes nothing.
            x = F.relu(convolution(x * inside))
        encoded: Tensor = self.out((x * inside).amax(dim=2))
        return encoded


class SoundEncoder(nn.Module):
    """Convolutions over a spectrogram's frames, each halving their number; the strongest response of each channel."""

    def __init__(self, bands: int, width: int, convolutions: int, out: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width if number else bands, width, 3, padding=1) for number in range(convolutions)
        )
        self.out = nn.Linear(width, out)

    def forward(self, sounds: Tensor) -> Tensor:
        """sounds: (batch, frames, bands); returns (batch, out)."""
        x = sounds.to(self.out.weight.dtype).transpose(1, 2)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
            if x.shape[2] > 1:
                x = F.max_pool1d(x, 2)
        encoded: Tensor = self.out(x.amax(dim=2))
        return encoded


class WordsAndSounds(nn.Module):
    """Both encoders as one tower: the words' output beside the sounds'."""

    def __init__(self, words: WordEncoder, sounds: SoundEncoder | None) -> None:
        super().__init__()
        self.words, self.sounds = words, sounds

    def forward(self, tokens: Tensor, sounds: Tensor | None) -> Tensor:
        """tokens: (batch, length); sounds: (batch, frames, bands). Returns (batch, embed_dim or twice that)."""
        encoded: Tensor = self.words(tokens)
        if self.sounds is None:
            return encoded
        return torch.cat([encoded, self.sounds(sounds)], dim=1)
