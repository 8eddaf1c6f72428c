"""Batch norms whose batch is that of every process (Ioffe and Szegedy 2015; "global BN" of Chen et al. 2020).

Where each process normed its own rows, the two views of an image, which are in one process, could be told from the
others by their statistics alone (Chen et al. 2020, section 2.1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.distributed import sum_over_processes, sum_over_processes_with_gradient, world


class GlobalBatchNorm(nn.Module):
    """Batch normalisation of rows by the mean and the variance of every process's rows.

    In evaluation mode it norms by the running averages. biased: whether there is a learned shift; there always is a
    learned gain.
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
        centred, variance = _centre(rows, self.running_mean, self.running_var, self.momentum)
        normed = centred * (variance + self.epsilon).rsqrt() * self.weight
        return normed if self.bias is None else normed + self.bias


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """A batch norm of images, likewise; a single process is left to the library."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (local, channels, height, width); returns the same shape and precision."""
        if not self.training or world().size == 1:
            return super().forward(x)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        wide = x if x.dtype == torch.float64 else x.float()
        rows = wide.permute(0, 2, 3, 1).flatten(0, 2)
        centred, variance = _centre(rows, self.running_mean, self.running_var, self.momentum)
        normed = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        count, _, height, width = x.shape
        return normed.view(count, height, width, -1).permute(0, 3, 1, 2).to(x.dtype)


def norm_globally(module: nn.Module) -> None:
    """Let the batch norms of images inside `module` norm by every process's rows; their parameters stay the same."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = GlobalBatchNorm2d


def _centre(
    rows: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Rows less the mean of everybody's, and everybody's variance, (width,); the running averages move."""
    count = sum_over_processes(torch.tensor(float(len(rows)), dtype=rows.dtype, device=rows.device))
    mean = sum_over_processes_with_gradient(rows.sum(dim=0)) / count
    # In a second sum, not as the mean of squares less the square of the mean, which cancels.
    centred = rows - mean
    variance = sum_over_processes_with_gradient(centred.square().sum(dim=0)) / count
    with torch.no_grad():
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * count / (count - 1).clamp(min=1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return centred, variance
