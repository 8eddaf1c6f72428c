"""The non-linear head between an encoder and a contrastive loss (Chen et al. 2020, SimCLR and SimCLRv2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.layers.global_batch_norm import GlobalBatchNorm
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.vision_transformer import VisionTransformer

_MOST_LAYERS = 16


class HiddenLayers(nn.Module):
    """Linear layers as wide as what comes in, each followed by a batch norm, whose shift is the bias, and a ReLU."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(linear(width, width) for _ in range(count))
        self.norms = nn.ModuleList(GlobalBatchNorm(width) for _ in range(count))

    def forward(self, features: Tensor) -> Tensor:
        """features: (rows, width); returns the same shape, and the features themselves where there is no layer."""
        for layer, norm in zip(self.linears, self.norms, strict=True):
            features = F.relu(norm(layer(features)))
        return features


class ProjectionHead(nn.Module):
    """g: encoder features h to the space of the loss; the last layer has neither shift nor ReLU.

    size.head_layers: linear layers, 2 in SimCLR and 3 in SimCLRv2; 1 is the linear head of the first paper's Figure 8.
    """

    def __init__(self, size: architectures.ProjectionHead, width: int) -> None:
        super().__init__()
        layers = size.head_layers
        if not 1 <= layers <= _MOST_LAYERS:
            raise SettingsError(f"a projection head of {layers} layers: expected 1 to {_MOST_LAYERS}")
        self.hidden = HiddenLayers(width, layers - 1)
        self.linear = linear(width, size.head_dim)
        self.norm = GlobalBatchNorm(size.head_dim, biased=False)

    def forward(self, features: Tensor) -> Tensor:
        """features: (rows, width); returns (rows, dim), not of unit length."""
        projected: Tensor = self.norm(self.linear(self.hidden(features)))
        return projected


class FeatureTower(nn.Module):
    """A tower whose one entry, `forward`, ends before the projection: what processes share and chunks go through.

    The projection, which no loss of this tower reaches, is frozen.
    """

    def __init__(self, tower: VisionTransformer | ModifiedResNet) -> None:
        super().__init__()
        self.tower = tower
        if isinstance(tower, ModifiedResNet):
            tower.attnpool.c_proj.requires_grad_(False)
        else:
            tower.proj.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), normalised; returns (batch, width)."""
        return self.tower.features(pixels)


def linear(before: int, after: int) -> nn.Linear:
    """A layer without a bias; weights as in the authors' code, whose standard deviation is 0.01."""
    made = nn.Linear(before, after, bias=False)
    nn.init.normal_(made.weight, std=0.01)
    return made
