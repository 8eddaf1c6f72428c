"""The CBOW text tower that CLIP's Figure 3 allows beside the transformer (Mikolov et al. 2013)."""

import torch
from torch import Tensor, nn

from diptych.models import architectures
from diptych.models.transformer import LayerNorm


class BagOfWords(nn.Module):
    """The mean of the token embeddings, normed and projected; the order of the words does not matter."""

    above_blocks = ("ln_final", "text_projection")
    blocks: tuple[nn.Module, ...] = ()

    def __init__(self, size: architectures.BagOfWords, embed_dim: int) -> None:
        super().__init__()
        self.context_length = size.context_length
        self.vocab_size = size.vocab_size
        self.width = size.width
        self.token_embedding = nn.Embedding(size.vocab_size, size.width)
        self.ln_final = LayerNorm(size.width)
        self.text_projection = nn.Parameter(torch.empty(size.width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.text_projection, std=size.width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length.

        The start token, the end token and the padding do not count; a text without words is the zero vector
        before the norm.
        """
        end = tokens.argmax(dim=-1, keepdim=True)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        words = ((position > 0) & (position < end))[..., None]
        total = (self.token_embedding(tokens) * words).sum(dim=1)
        normed: Tensor = self.ln_final(total / words.sum(dim=1).clamp(min=1))
        return normed.to(self.text_projection.dtype) @ self.text_projection

    def tokens(self, tokens: Tensor) -> Tensor:
        """The embedding of each token, before the mean: (batch, tokens, width)."""
        embedded: Tensor = self.token_embedding(tokens)
        return embedded
