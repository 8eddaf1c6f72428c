"""The objective of SimCLR, between two views of each image (Chen et al. 2020, equation 1 and algorithm 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def nt_xent(views: Pairs, temperature: float) -> tuple[Tensor, int]:
    """Return the cross-entropy of finding, for each view of an image, its other view among all other views.

    views: `left` is the first view of each image and `right` the second, unit length; N images in the global batch.
    temperature: the divisor of similarities; 0.1 for ImageNet and 0.5 for CIFAR-10 in the paper.
    The normaliser of a view has 2N - 1 terms: the other view of its image, and both views of the other images; only
    the view itself is left out. With `views.groups`, the other images of a group are left out as well: they show the
    same concept, and are neither positives nor negatives.
    Returns the sum over this process's images of the mean of both views' losses, and their number: the sums of all
    processes over the global count are the paper's mean over 2N. (The authors' code adds the two halves, which gives
    twice that value.)
    """
    count = len(views.left)
    device = views.left.device
    mine = torch.arange(views.first, views.first + count, device=device)
    every = torch.arange(len(views.all_left), device=device)
    itself = mine[:, None] == every[None, :]  # (local, global)
    others = itself
    if views.groups is not None:
        others = views.groups[mine, None] == views.groups[None, :]
    loss = views.left.new_zeros(())
    for view, same_side, other_side in (
        (views.left, views.all_left, views.all_right),
        (views.right, views.all_right, views.all_left),
    ):
        across = (view @ other_side.T / temperature).masked_fill(others & ~itself, -torch.inf)
        along = (view @ same_side.T / temperature).masked_fill(others, -torch.inf)
        loss = loss + F.cross_entropy(torch.cat([across, along], dim=1), mine, reduction="sum")
    return loss / 2, count
