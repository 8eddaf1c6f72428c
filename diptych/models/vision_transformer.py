"""The image tower of the ViT models (Dosovitskiy et al. 2020; Radford et al. 2021, section 2.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Activation
from diptych.models.layers.execution import is_cpu_inference
from diptych.models.layers.linear import linear
from diptych.models.transformer import Block, LayerNorm, Transformer

# Inference on a CPU takes a large batch in parts of about this many tokens: what passes between the layers of a part
# stays in the cache, and a batch of any size needs the memory of a part.
_CACHED_TOKENS = 1024


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, a norm before the blocks, and the class token's feature."""

    above_blocks = ("ln_post", "proj")

    def __init__(self, size: architectures.VisionTransformer, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        if size.resolution % size.patch:
            raise SettingsError(f"resolution {size.resolution} is not a multiple of the patch {size.patch}")
        self.input_resolution = size.resolution
        self.output_dim = embed_dim
        self.width = size.width
        tokens = (size.resolution // size.patch) ** 2 + 1
        scale = size.width**-0.5
        self.conv1 = nn.Conv2d(3, size.width, kernel_size=size.patch, stride=size.patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(size.width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(tokens, size.width))
        self.ln_pre = LayerNorm(size.width)
        heads = size.heads or size.width // 64
        self.transformer = Transformer(size.width, size.layers, heads, activation, causal=False)
        self.ln_post = LayerNorm(size.width)
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
        """The class token before the projection: (batch, width)."""
        if is_cpu_inference(pixels):
            images = max(1, _CACHED_TOKENS // len(self.positional_embedding))
            return torch.cat([self._features(part) for part in torch.split(pixels, images)])
        return self._features(pixels)

    def tokens(self, pixels: Tensor) -> Tensor:
        """The class token, then the patches in reading order, before the projection.

        Returns (batch, 1 + patches, width).
        """
        normed: Tensor = self.ln_post(self.transformer(self._embed(pixels)))
        return normed

    def _features(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        x = self._embed(pixels) if kept is None else self._embed_kept(pixels, kept)
        first = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        normed: Tensor = self.ln_post(self.transformer.at(x, first))
        return normed

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
