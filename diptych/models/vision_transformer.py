"""The image tower of the ViT models (Dosovitskiy et al. 2020; Radford et al. 2021, section 2.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Activation
from diptych.models.layers.execution import is_cpu_inference
from diptych.models.layers.linear import linear
from diptych.models.transformer import EPSILON, Block, LayerNorm, Transformer

# Inference on a CPU takes a large batch in parts of about this many tokens: what passes between the layers of a part
# stays in the cache, and a batch of any size needs the memory of a part.
_CACHED_TOKENS = 1024


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, blocks, and the feature of the class token or of the patches' mean."""

    above_blocks = ("ln_post", "proj")

    positional_embedding: Tensor  # (1 + patches, width), the class token's first

    def __init__(self, size: architectures.VisionTransformer, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        if size.resolution % size.patch:
            raise SettingsError(f"resolution {size.resolution} is not a multiple of the patch {size.patch}")
        self.input_resolution = size.resolution
        self.output_dim = embed_dim
        self.width = size.width
        grid = size.resolution // size.patch
        scale = size.width**-0.5
        self.conv1 = nn.Conv2d(3, size.width, kernel_size=size.patch, stride=size.patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(size.width))
        if size.positions == "sinusoidal":
            self.register_buffer("positional_embedding", grid_positions(grid, size.width))
        else:
            self.positional_embedding = nn.Parameter(scale * torch.randn(grid**2 + 1, size.width))
        epsilon = size.epsilon or EPSILON
        self.ln_pre = nn.Identity() if size.first_norm is False else LayerNorm(size.width, epsilon)
        self.transformer = Transformer(size, activation, causal=False)
        self.pool, self.norm_after_pool = size.pool, bool(size.norm_after_pool)
        self.ln_post = LayerNorm(size.width, epsilon)
        self.proj = nn.Parameter(scale * torch.randn(size.width, embed_dim))

    @property
    def patches(self) -> int:
        """Of a whole image."""
        return len(self.positional_embedding) - 1

    @property
    def blocks(self) -> list[Block]:
        """The blocks, first to last."""
        return self.transformer.blocks

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """pixels: (batch, 3, n, n), normalised; returns (batch, embed_dim), not of unit length.

        kept: (batch, any number) patches that the tower sees of each image, counted in reading order; the others
        cost nothing (see `patch_dropout`). All of them when not given.
        """
        if kept is None:
            return self.features(pixels) @ self.proj
        return self._features(pixels, kept) @ self.proj

    def features(self, pixels: Tensor) -> Tensor:
        """The class token, or the mean of the patches, before the projection: (batch, width)."""
        if is_cpu_inference(pixels):
            images = max(1, _CACHED_TOKENS // len(self.positional_embedding))
            return torch.cat([self._features(part) for part in torch.split(pixels, images)])
        return self._features(pixels)

    def tokens(self, pixels: Tensor) -> Tensor:
        """The feature, then the patches in reading order, each after the last norm and before the projection.

        Returns (batch, 1 + patches, width).
        """
        x = self.transformer(self._embed(pixels))
        normed: Tensor = self.ln_post(x)
        if self.pool is None:
            return normed
        return torch.cat([self._mean(x)[:, None], normed[:, 1:]], dim=1)

    def _features(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        x = self._embed(pixels) if kept is None else self._embed_kept(pixels, kept)
        if self.pool is not None:
            return self._mean(self.transformer(x))
        first = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        normed: Tensor = self.ln_post(self.transformer.at(x, first))
        return normed

    def _mean(self, x: Tensor) -> Tensor:
        """The mean of the patches, without the class token, and the last norm; x: (batch, 1 + patches, width)."""
        mean: Tensor
        mean = (
            self.ln_post(x[:, 1:].mean(dim=1)) if self.norm_after_pool else self.ln_post(x[:, 1:]).mean(dim=1)
        )
        return mean

    def _embed(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)  # (batch, patches, width)
        return self._with_class_token(patches, self.positional_embedding)

    def _embed_kept(self, pixels: Tensor, kept: Tensor) -> Tensor:
        """The tokens that `_embed` gives to these patches and to the class token: (batch, 1 + kept, width)."""
        side = self.conv1.kernel_size[0]
        grid = self.input_resolution // side
        cut = pixels.view(len(pixels), 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5)
        row = torch.arange(len(pixels), device=pixels.device)[:, None]
        chosen = cut[row, kept // grid, kept % grid].flatten(2)  # (batch, kept, 3 * side * side)
        patches = linear(chosen, self.conv1.weight.flatten(1))
        numbers = F.pad(kept + 1, (1, 0))  # the class token stands before the patches
        return self._with_class_token(patches, F.embedding(numbers, self.positional_embedding))

    def _with_class_token(self, patches: Tensor, positions: Tensor) -> Tensor:
        first = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches], dim=1) + positions.to(patches.dtype)
        normed: Tensor = self.ln_pre(x)
        return normed


def grid_positions(side: int, width: int) -> Tensor:
    """Return the fixed positions of a class token, which are zero, and of a grid of patches: (1 + side * side, width).

    The first half of the columns tells the column of a patch, the second its row; each half holds the sines of
    position * 10000^(-4 * channel / width), then the cosines (MoCo v3: Chen et al. 2021, section 4). A multiple of 4
    channels, float32. Raises SettingsError for another width.
    """
    if width % 4:
        raise SettingsError(f"positions 'sinusoidal': the width {width} is not a multiple of 4")
    channel = torch.arange(width // 4, dtype=torch.float64)
    angle = torch.outer(torch.arange(side, dtype=torch.float64), 10_000 ** (-4 * channel / width))
    place = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    across, down = place.expand(side, -1, -1), place[:, None].expand(-1, side, -1)
    table = torch.cat([across, down], dim=2).flatten(0, 1)
    return F.pad(table, (0, 0, 1, 0)).float()
