"""The text tower: a transformer whose feature is one token's (Radford et al. 2021, section 2.4)."""

import torch
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Activation
from diptych.models.heads.compact_vocabulary import CompactVocabulary
from diptych.models.layers.execution import is_cpu_inference, is_exported
from diptych.models.layers.linear import Linear
from diptych.models.layers.text_packing import pack, positions_of_largest
from diptych.models.transformer import EPSILON, Block, LayerNorm, Transformer


class TextTransformer(nn.Module):
    """Token embeddings, positions, causal blocks, a norm and a projection.

    The feature is the end token's, which has the largest id or the one that the sizes give. What follows it cannot
    reach it through a causal mask: the tower therefore runs only up to the longest end token of the batch, and gives
    the same result. Where every token sees every other, or the last one is the feature, a text has its whole length.
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
        causal = size.causal is not False
        self.pool, self.end_id = size.pool, size.end_id
        self.cuts_texts = causal and size.pool is None  # at their end tokens
        self.transformer = Transformer(size, activation, causal=causal)
        self.ln_final = LayerNorm(size.width, size.epsilon or EPSILON)
        self.text_projection = _projection(size, embed_dim)
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
        if is_cpu_inference(tokens) and self.cuts_texts:
            packing = pack(tokens, self.pooled_positions)
            x = self._embed(packing.tokens, packing.positions)
            pooled = self.transformer.packed(x, packing)
        else:
            position = self.pooled_positions(tokens)
            cut = self.cuts_texts and not is_exported()
            used = tokens[:, : int(position.max()) + 1] if cut else self._whole(tokens)
            pooled = self.transformer.at(self._embed_texts(used), position)
        return self.project(self.ln_final(pooled))

    def project(self, features: Tensor) -> Tensor:
        """features: (batch, width), after the last norm; returns (batch, embed_dim)."""
        if self.text_projection is None:
            return features
        if isinstance(self.text_projection, nn.Parameter):
            return features @ self.text_projection
        projected: Tensor = self.text_projection(features)
        return projected

    def pooled_positions(self, tokens: Tensor) -> Tensor:
        """Where the token stands that is the feature of each text: (batch,); the first where there is no end token."""
        if self.pool is not None:
            place = 0 if self.pool == "first" else tokens.shape[1] - 1
            return torch.full((len(tokens),), place, device=tokens.device)
        return positions_of_largest(tokens if self.end_id is None else (tokens == self.end_id).int())

    def tokens(self, tokens: Tensor) -> Tensor:
        """Every token of the last block, before the projection: (batch, tokens, width)."""
        normed: Tensor = self.ln_final(self.transformer(self._embed_texts(self._whole(tokens))))
        return normed

    def _whole(self, tokens: Tensor) -> Tensor:
        if not self.cuts_texts and tokens.shape[1] != self.context_length:
            raise SettingsError(
                f"tokens: expected (batch, {self.context_length}), found {tuple(tokens.shape)}; in this model the "
                f"padding of a text counts, so tokenize with context_length={self.context_length}"
            )
        return tokens

    def _embed_texts(self, tokens: Tensor) -> Tensor:
        return self._embed(tokens, slice(tokens.shape[1]))

    def _embed(self, tokens: Tensor, positions: Tensor | slice) -> Tensor:
        """Embeddings of `tokens`, whose last dimension has these positions: (*tokens.shape, width)."""
        x: Tensor = self.token_embedding(self.words.rows_of(tokens)).to(self._dtype)
        if self.embedding_projection is not None:
            x = self.embedding_projection(x)
        return x + self._position_table()[positions].to(x.dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return self.transformer.blocks[0].attn.in_proj_weight.dtype

    def _position_table(self) -> Tensor:
        if self.positional_embedding is not None:
            return self.positional_embedding
        return sinusoidal_positions(self.context_length, self.width, self.token_embedding.weight.device)

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
        if isinstance(self.text_projection, nn.Linear):
            nn.init.normal_(self.text_projection.weight, std=width**-0.5)
            nn.init.zeros_(self.text_projection.bias)
        elif self.text_projection is not None:
            nn.init.normal_(self.text_projection, std=width**-0.5)


def _projection(size: architectures.TextTransformer, embed_dim: int) -> nn.Parameter | Linear | None:
    if size.projection == "biased":
        return Linear(size.width, embed_dim)
    if size.projection == "none" and size.width != embed_dim:
        raise SettingsError(
            f"projection 'none': the text tower has a width of {size.width}, and embed_dim is {embed_dim}; "
            "expected the same"
        )
    return None if size.projection == "none" else nn.Parameter(torch.empty(size.width, embed_dim))


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
