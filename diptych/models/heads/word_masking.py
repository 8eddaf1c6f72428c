"""Which words of a text are hidden from a masked language model (Devlin et al. 2018, section 3.1).

A pure function of one seed a text, as `patch_dropout` is of one an image.
"""

import torch
from torch import Tensor

from diptych.models.layers.patch_dropout import splitmix64

# Another stream of numbers than that of the patches of the same seed.
_WORDS, _FATE, _OTHER = 0x243F6A8885A308D3, 0x13198A2E03707344, 0x082EFA98EC4E6C89  # digits of pi


def mask_words(seeds: Tensor, tokens: Tensor, share: float, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the model reads, where the mask is, and which words it is to predict: each (batch, length).

    seeds: (batch,) int64. tokens: (batch, length) ids, padded after the end token, which has the largest id. share: of
    a text's words that are chosen; at least one of a text that has any. Of the chosen, 80 % are hidden by the mask, 10
    % become another word (an id below `vocabulary` - 2, the start and the end token), 10 % stay what they are.
    """
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (position > 0) & (position < tokens.argmax(dim=1, keepdim=True))
    count = inside.sum(dim=1, keepdim=True)
    number = torch.where(count > 0, (count * share).round().clamp(min=1), 0)
    order = _uniform(seeds, position, _WORDS).masked_fill(~inside, 2.0).argsort(dim=1).argsort(dim=1)
    chosen = order < number
    fate = _uniform(seeds, position, _FATE)
    other = (_uniform(seeds, position, _OTHER) * (vocabulary - 2)).to(tokens.dtype)
    read = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), other, tokens)
    return read, chosen & (fate < 0.8), chosen


def _uniform(seeds: Tensor, position: Tensor, stream: int) -> Tensor:
    """Return a number in [0, 1) for each text and position: (batch, length), float64."""
    mixed = splitmix64(splitmix64(seeds ^ stream)[:, None] + position)
    return ((mixed >> 11) & ((1 << 53) - 1)).double() / (1 << 53)
