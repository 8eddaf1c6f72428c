"""The image tower of the RN models (Radford et al. 2021, section 2.4).

A ResNet with three changes: a stem of three convolutions and an average pool (He et al. 2019, ResNet-D),
average pools before every strided step (Zhang 2019), and attention in place of the global average pool.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.layers.linear import Linear
from diptych.models.layers.recompute import recomputed
from diptych.models.transformer import check_heads, join_heads, split_heads

_EXPANSION = 4  # channels of a bottleneck's output, over those of its middle


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions of stride 1; an average pool does the striding."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * _EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * _EXPANSION)
        # The published checkpoints call the pool "-1", the convolution "0" and the norm "1".
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != planes * _EXPANSION:
            self.downsample = nn.Sequential(
                OrderedDict(
                    {
                        "-1": nn.AvgPool2d(stride),
                        "0": nn.Conv2d(channels, planes * _EXPANSION, 1, bias=False),
                        "1": nn.BatchNorm2d(planes * _EXPANSION),
                    }
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.pool(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut)


class AttentionPool(nn.Module):
    """One layer of multi-head attention whose query is the mean of the grid."""

    def __init__(self, grid: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, width) / width**0.5)
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.c_proj = Linear(width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, width, grid, grid); returns (batch, embed_dim)."""
        projected: Tensor = self.c_proj(self.mix(x, queries=1)[:, 0])
        return projected

    def mix(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Attention before `c_proj` for the first `queries` tokens (all when not given).

        x: (batch, width, grid, grid). The tokens are the mean, then the grid in reading order. Returns
        (batch, queries, width).
        """
        grid = x.flatten(2).transpose(1, 2)  # (batch, grid * grid, width)
        tokens = torch.cat([grid.mean(dim=1, keepdim=True), grid], dim=1)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        mixed = F.scaled_dot_product_attention(
            split_heads(self.q_proj(tokens[:, :queries]), self.heads),
            split_heads(self.k_proj(tokens), self.heads),
            split_heads(self.v_proj(tokens), self.heads),
        )
        return join_heads(mixed)


class ModifiedResNet(nn.Module):
    """Stem, four stages of bottlenecks, attention pool."""

    above_blocks = ("attnpool",)

    def __init__(self, size: architectures.ModifiedResNet, embed_dim: int) -> None:
        super().__init__()
        stride = 8 * size.stem_stride
        if size.resolution % stride:
            raise SettingsError(
                f"resolution {size.resolution} is not a multiple of the total stride {stride}"
            )
        self.recompute = False  # whether the backward pass computes the inside of each bottleneck again
        self.input_resolution = size.resolution
        self.output_dim = embed_dim
        self.width = size.width * 32
        half = size.width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, size.width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(size.width)
        self.avgpool = nn.AvgPool2d(2) if size.stem_stride == 4 else nn.Identity()
        width, layers = size.width, size.layers
        self.layer1 = _stage(width, width, layers[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, layers[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, layers[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, layers[3], stride=2)
        self.attnpool = AttentionPool(
            size.resolution // stride, self.width, size.heads or size.width // 2, embed_dim
        )
        self._initialise()

    @property
    def blocks(self) -> list[Bottleneck]:
        """The bottlenecks, first to last."""
        return [
            cast(Bottleneck, block)
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4)
            for block in stage
        ]

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), normalised; returns (batch, embed_dim), not of unit length."""
        pooled: Tensor = self.attnpool(self._grid(pixels))
        return pooled

    def features(self, pixels: Tensor) -> Tensor:
        """The pooled token before `attnpool.c_proj`: (batch, 32 * stem width)."""
        return self.attnpool.mix(self._grid(pixels), queries=1)[:, 0]

    def tokens(self, pixels: Tensor) -> Tensor:
        """The pooled token and the grid in reading order, as the attention pool mixes them.

        Returns (batch, 1 + grid * grid, 32 * stem width); the first one is `features`.
        """
        return self.attnpool.mix(self._grid(pixels))

    def _grid(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = self.avgpool(x)
        for block in self.blocks:
            x = recomputed(block, x) if self.recompute and torch.is_grad_enabled() else block(x)
        return x

    def _initialise(self) -> None:
        for projection in (
            self.attnpool.q_proj,
            self.attnpool.k_proj,
            self.attnpool.v_proj,
            self.attnpool.c_proj,
        ):
            nn.init.normal_(projection.weight, std=self.width**-0.5)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                # Each block starts as its shortcut alone (Goyal et al. 2017, section 5.1).
                nn.init.zeros_(module.bn3.weight)


def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Bottlenecks from `channels` to `planes * 4` channels; the first of them does the striding."""
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(planes * _EXPANSION, planes, 1) for _ in range(blocks - 1)))
