"""The non-linear head between an encoder and a contrastive loss (Chen et al. 2020, SimCLR and SimCLRv2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.distributed import sum_over_processes, sum_over_processes_with_gradient
from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.vision_transformer import VisionTransformer

_MOST_LAYERS = 16


class GlobalBatchNorm(nn.Module):
    """Batch normalisation of rows by the mean and the variance of every process's rows (Ioffe and Szegedy 2015).

    Where each process normed its own rows, the two views of an image, which are in one process, could be told from the
    others by their statistics alone (Chen et al. 2020, section 2.1). In evaluation mode it norms by the running
    averages. biased: whether there is a learned shift; there always is a learned gain.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, width: int, *, biased: bool = True, epsilon: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if biased else None
        self.epsilon = epsilon
        self.momentum = momentum  # share of the newest batch in the running averages
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (local, width), of any number in each process; returns the same shape."""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(rows, mean, variance, self.weight, self.bias, eps=self.epsilon)
        count = sum_over_processes(torch.tensor(float(len(rows)), dtype=rows.dtype, device=rows.device))
        mean = sum_over_processes_with_gradient(rows.sum(dim=0)) / count
        # In a second sum, not as the mean of squares less the square of the mean, which cancels.
        centred = rows - mean
        variance = sum_over_processes_with_gradient(centred.square().sum(dim=0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normed = centred * (variance + self.epsilon).rsqrt() * self.weight
        return normed if self.bias is None else normed + self.bias


class ProjectionHead(nn.Module):
    """g: encoder features h to the space of the loss. Each linear layer is followed by a batch norm.

    Hidden layers are as wide as h and end in a ReLU; the last one has neither shift nor ReLU, as in the authors' code.
    size.head_layers: linear layers, 2 in SimCLR and 3 in SimCLRv2; 1 is the linear head of the first paper's Figure 8.
    """

    above_blocks = ("linears", "norms")
    blocks: tuple[nn.Module, ...] = ()

    def __init__(self, size: architectures.ProjectionHead, width: int) -> None:
        super().__init__()
        layers = size.head_layers
        if not 1 <= layers <= _MOST_LAYERS:
            raise SettingsError(f"a projection head of {layers} layers: expected 1 to {_MOST_LAYERS}")
        self.context_length = size.context_length
        self.vocab_size = size.vocab_size
        widths = [width] * layers + [size.head_dim]
        # The norm's shift takes the place of a bias.
        self.linears = nn.ModuleList(
            nn.Linear(before, after, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(
            GlobalBatchNorm(after, biased=number < layers) for number, after in enumerate(widths[1:], 1)
        )
        for linear in self.linears:
            # As the authors' code: TensorFlow's dense layers with a standard deviation of 0.01.
            nn.init.normal_(linear.weight, std=0.01)  # type: ignore[arg-type]

    def forward(self, features: Tensor, layers: int | None = None) -> Tensor:
        """features: (rows, width); returns (rows, dim), not of unit length.

        layers: stop after so many layers, (rows, width): where SimCLRv2 begins to fine-tune, after the first. All of
        them when not given; 0 are the features themselves.
        """
        last = len(self.linears)
        for number in range(last if layers is None else min(layers, last)):
            features = self.norms[number](self.linears[number](features))
            if number < last - 1:
                features = F.relu(features)
        return features


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
