"""The text tower: a causal transformer whose feature is the end token's (Radford et al. 2021, section 2.4)."""

import torch
from torch import Tensor, nn

from diptych.models import architectures
from diptych.models.architectures import Activation
from diptych.models.heads.compact_vocabulary import CompactVocabulary
from diptych.models.layers.execution import is_cpu_inference, is_exported
from diptych.models.layers.linear import Linear
from diptych.models.layers.text_packing import pack
from diptych.models.transformer import Block, LayerNorm, Transformer


class TextTransformer(nn.Module):
    """Token embeddings, positions, causal blocks, a norm and a projection.

    The end token has the largest id, so that `argmax` finds it. What follows it cannot reach it through a causal
    mask: the tower therefore runs only up to the longest end token of the batch, and gives the same result.
    """

    above_blocks = ("ln_final", "text_projection")

    def __init__(self, size: architectures.TextTransformer, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        self.context_length = size.context_length
        self.vocab_size = size.vocab_size
        self.width = size.width
        inner = size.embedding_width or size.width
        self.words = CompactVocabulary(size.known, size.vocab_size)
        self.token_embedding = nn.Embedding(self.words.rows, inner)
        self.embedding_projection = Linear(inner, size.width, bias=False) if inner != size.width else None
        self.positional_embedding: nn.Parameter | None = None
        if size.positions == "learned":
            self.positional_embedding = nn.Parameter(torch.empty(size.context_length, size.width))
        heads = size.heads or size.width // 64
        self.transformer = Transformer(size.width, size.layers, heads, activation, causal=True)
        self.ln_final = LayerNorm(size.width)
        self.text_projection = nn.Parameter(torch.empty(size.width, embed_dim))
        self._initialise()

    @property
    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return self.transformer.blocks

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length.

        Inference on a CPU packs the batch, which is the same within rounding and does not call the blocks'
        `forward`; a hook on a block sees `tokens`, and every run with gradients.
        """
        if is_cpu_inference(tokens):
            packing = pack(tokens)
            x = self._embed(packing.tokens, packing.positions)
            pooled = self.transformer.packed(x, packing)
        else:
            end = tokens.argmax(dim=-1)
            used = tokens if is_exported() else tokens[:, : int(end.max()) + 1]
            pooled = self.transformer.at(self._embed_texts(used), end)
        normed: Tensor = self.ln_final(pooled)
        return normed @ self.text_projection

    def tokens(self, tokens: Tensor) -> Tensor:
        """Every token of the last block, before the projection: (batch, tokens, width)."""
        normed: Tensor = self.ln_final(self.transformer(self._embed_texts(tokens)))
        return normed

    def _embed_texts(self, tokens: Tensor) -> Tensor:
        return self._embed(tokens, slice(tokens.shape[1]))

    def _embed(self, tokens: Tensor, positions: Tensor | slice) -> Tensor:
        """Embeddings of `tokens`, whose last dimension has these positions: (*tokens.shape, width)."""
        x: Tensor = self.token_embedding(self.words.rows_of(tokens)).to(self.text_projection.dtype)
        if self.embedding_projection is not None:
            x = self.embedding_projection(x)
        return x + self._position_table()[positions].to(x.dtype)

    def _position_table(self) -> Tensor:
        if self.positional_embedding is not None:
            return self.positional_embedding
        return sinusoidal_positions(self.context_length, self.width, self.text_projection.device)

    def _initialise(self) -> None:
        width = self.width
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if self.positional_embedding is not None:
            nn.init.normal_(self.positional_embedding, std=0.01)
        if self.embedding_projection is not None:
            nn.init.normal_(self.embedding_projection.weight, std=self.token_embedding.embedding_dim**-0.5)
        blocks = self.transformer.blocks
        residual = width**-0.5 * (2 * len(blocks)) ** -0.5
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=residual)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual)
        nn.init.normal_(self.text_projection, std=width**-0.5)


def sinusoidal_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Return the fixed positions of Vaswani et al. (2017), section 3.5: (length, width), float32.

    Even columns hold sin(position / 10000^(column / width)), odd columns the cosine of the same angle.
    """
    position = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    even = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angle = position / 10_000 ** (even / width)
    table = torch.empty(length, width, device=device)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table
