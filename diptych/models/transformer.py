"""The pre-norm transformer that both towers share (Vaswani et al. 2017; Radford et al. 2019)."""

import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Activation
from diptych.models.layers.linear import Linear, linear
from diptych.models.layers.recompute import recomputed
from diptych.models.layers.text_packing import Packing


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI's models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x * torch.sigmoid(1.702 * x)
        # The same function as silu(1.702 x) / 1.702: one new tensor in place of three.
        return F.silu(1.702 * x, inplace=True).mul_(1 / 1.702)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_tanh": functools.partial(nn.GELU, approximate="tanh"),
}
EPSILON = 1e-5  # of a layer norm whose architecture gives no other

TransformerSize = architectures.VisionTransformer | architectures.TextTransformer


class LayerNorm(nn.LayerNorm):
    """Layer norm in the precision of its own weights, which stay float32 in a float16 model."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.weight.dtype)
        return F.layer_norm(wide, self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """x: (batch, tokens, width); returns the same shape. Causal: a token sees itself and those before."""
        query, key, value = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(value, self.heads),
            is_causal=causal,
        )
        projected: Tensor = self.out_proj(join_heads(mixed))
        return projected

    def at(self, x: Tensor, position: Tensor, *, causal: bool) -> Tensor:
        """The output of one token of each row: exact, and without the queries of the others.

        x: (batch, tokens, width); position: (batch,) of the token. Returns (batch, width).
        """
        width = x.shape[-1]
        rows = torch.arange(x.shape[0], device=x.device)
        query = linear(x[rows, position], self.in_proj_weight[:width], self.in_proj_bias[:width])
        key, value = linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        mask = None
        if causal:
            seen = torch.arange(x.shape[1], device=x.device) <= position[:, None]
            mask = seen[:, None, None, :]  # (batch, 1, 1, tokens)
        mixed = F.scaled_dot_product_attention(
            split_heads(query[:, None], self.heads),
            split_heads(key, self.heads),
            split_heads(value, self.heads),
            attn_mask=mask,
        )
        projected: Tensor = self.out_proj(join_heads(mixed)[:, 0])
        return projected


class MLP(nn.Module):
    """The MLP of a block."""

    def __init__(self, width: int, inner: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = Linear(width, inner)
        self.activation = ACTIVATIONS[activation]()
        self.c_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return mapped


class LayerScale(nn.Module):
    """A learned factor of each channel (CaiT: Touvron et al. 2021, "Going deeper with Image Transformers")."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.to(x.dtype)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and beside a residual connection."""

    def __init__(self, size: TransformerSize, activation: Activation) -> None:
        super().__init__()
        width, epsilon = size.width, size.epsilon or EPSILON
        self.ln_1 = LayerNorm(width, epsilon)
        self.attn = Attention(width, size.heads or width // 64)
        self.ln_2 = LayerNorm(width, epsilon)
        self.mlp = MLP(width, size.mlp_width or 4 * width, size.activation or activation)
        scale = size.layer_scale
        self.ls_1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.ls_2 = nn.Identity() if scale is None else LayerScale(width, scale)

    def forward(self, x: Tensor, *, causal: bool, position: Tensor | None = None) -> Tensor:
        """x: (batch, tokens, width); returns the same shape.

        position: (batch,), where only one token of each row is wanted: (batch, width), see `Attention.at`. It is
        an argument and not a method because hooks, compilation and sharding go through `forward`.
        """
        if position is None:
            x = x + self.ls_1(self.attn(self.ln_1(x), causal=causal))
        else:
            rows = torch.arange(x.shape[0], device=x.device)
            x = x[rows, position] + self.ls_1(self.attn.at(self.ln_1(x), position, causal=causal))
        return self._mlp(x)

    def packed(self, x: Tensor, packing: Packing, rows: Tensor | slice) -> Tensor:
        """Those `rows` of a packed batch; x: (all rows, width)."""
        attn = self.attn
        mixed = packing.attend(linear(self.ln_1(x), attn.in_proj_weight, attn.in_proj_bias), attn.heads)
        x = x[rows] + self.ls_1(attn.out_proj(mixed[rows]))
        return self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return added


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, size: TransformerSize, activation: Activation, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.recompute = False  # whether the backward pass computes the inside of each block again
        self.resblocks = nn.ModuleList(Block(size, activation) for _ in range(size.layers))

    @property
    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.resblocks))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, width); returns every token of the last block."""
        for block in self.blocks:
            x = self._run(block, x)
        return x

    def at(self, x: Tensor, position: Tensor) -> Tensor:
        """The last block's output at one token of each row: (batch, width).

        Equal to `self(x)[rows, position]`. The last block works out only what that token needs, which saves
        most of its attention and all but one token of its MLP.
        """
        *blocks, last = self.blocks
        for block in blocks:
            x = self._run(block, x)
        return self._run(last, x, position)

    def packed(self, x: Tensor, packing: Packing) -> Tensor:
        """The last block's output at the end token of each text: (batch, width).

        x: (rows, width), the rows of `packing`. Equal to `at` for the same texts padded to one length.
        """
        *blocks, last = self.blocks
        for block in blocks:
            x = block.packed(x, packing, slice(None))
        return last.packed(x, packing, packing.ends)

    def _run(self, block: Block, x: Tensor, position: Tensor | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return recomputed(block, x, causal=self.causal, position=position)
        output: Tensor = block(x, causal=self.causal, position=position)
        return output


def check_heads(width: int, heads: int) -> None:
    """Raise `SettingsError` unless `heads` divides `width`."""
    if heads < 1 or width % heads:
        raise SettingsError(
            f"heads: {heads} does not divide the width {width}; give a number of heads that does"
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, width / heads)."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(batch, heads, tokens, width / heads) to (batch, tokens, width)."""
    return x.transpose(1, 2).flatten(-2)
