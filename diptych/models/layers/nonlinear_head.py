"""The second half of a non-linear projection into the space that images and texts share (Zhang et al. 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn


class NonlinearHead(nn.Module):
    """W2 relu(.), after a tower whose last map is W1: together ConVIRT's g (Zhang et al. 2020, section 2.2)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, embed_dim, bias=False)
        nn.init.normal_(self.linear.weight, std=embed_dim**-0.5)

    def forward(self, projected: Tensor) -> Tensor:
        """projected: (batch, embed_dim), what a tower returns; returns the same shape, not of unit length."""
        out: Tensor = self.linear(F.relu(projected))
        return out


class HeadedTower(nn.Module):
    """A tower and its head: what processes share and chunks go through."""

    def __init__(self, tower: nn.Module, head: NonlinearHead) -> None:
        super().__init__()
        self.tower = tower
        self.head = head

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs: those of the tower; returns (batch, embed_dim), not of unit length."""
        out: Tensor = self.head(self.tower(*inputs))
        return out
