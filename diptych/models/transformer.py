"""The pre-norm transformer that both towers share (Vaswani et al. 2017; Radford et al. 2019)."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.architectures import Activation


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class LayerNorm(nn.LayerNorm):
    """Layer norm in the precision of its own weights, which stay float32 in a float16 model."""

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """x: (batch, tokens, width); returns the same shape. Causal: a token sees itself and those before."""
        query, key, value = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), is_causal=causal
        )
        return self.out_proj(self._join(mixed))

    def at(self, x: Tensor, position: Tensor, *, causal: bool) -> Tensor:
        """The output of one token of each row: exact, and without the queries of the others.

        x: (batch, tokens, width); position: (batch,) of the token. Returns (batch, width).
        """
        width = x.shape[-1]
        rows = torch.arange(len(x), device=x.device)
        query = F.linear(x[rows, position], self.in_proj_weight[:width], self.in_proj_bias[:width])
        key, value = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        mask = None
        if causal:
            seen = torch.arange(x.shape[1], device=x.device) <= position[:, None]
            mask = seen[:, None, None, :]  # (batch, 1, 1, tokens)
        mixed = F.scaled_dot_product_attention(
            self._split(query[:, None]), self._split(key), self._split(value), attn_mask=mask
        )
        return self.out_proj(self._join(mixed)[:, 0])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, width / heads)

    @staticmethod
    def _join(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(-2)  # (batch, tokens, width)


class Block(nn.Module):
    """Attention and a two-layer perceptron of four times the width, each after a norm and beside a residual."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                activation=ACTIVATIONS[activation](),
                c_proj=nn.Linear(4 * width, width),
            )
        )

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal=causal)
        return x + self.mlp(self.ln_2(x))

    def at(self, x: Tensor, position: Tensor, *, causal: bool) -> Tensor:
        """One token of each row, (batch, width); see `Attention.at`."""
        rows = torch.arange(len(x), device=x.device)
        pooled = x[rows, position] + self.attn.at(self.ln_1(x), position, causal=causal)
        return pooled + self.mlp(self.ln_2(pooled))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.resblocks = nn.ModuleList(Block(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, width); returns every token of the last block."""
        for block in self.resblocks:
            x = block(x, causal=self.causal)
        return x

    def at(self, x: Tensor, position: Tensor) -> Tensor:
        """The last block's output at one token of each row: (batch, width).

        Equal to `self(x)[rows, position]`. The last block works out only what that token needs, which saves
        most of its attention and all but one token of its perceptron.
        """
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x, causal=self.causal)
        pooled: Tensor = last.at(x, position, causal=self.causal)
        return pooled
