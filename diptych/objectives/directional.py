"""The two directional losses of ConVIRT (Zhang et al. 2020, equations 2 to 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def convirt(pairs: Pairs, temperature: float, image_weight: float) -> tuple[Tensor, int]:
    """Match each image with its text among all texts, and each text with its image, with a weight for each direction.

    pairs: `left` are images and `right` texts, unit length. temperature: the fixed divisor of similarities (0.1 in the
    paper). image_weight: the paper's lambda, 0..1, of the direction from images to texts (0.75); the other direction
    has 1 - lambda. There are no negatives between images, or between texts.
    Returns the weighted sum over this process's rows, and their number. With lambda = 1/2 it is `infonce` at the scale
    1 / temperature. With `pairs.groups`, the rows of a group are left out of each other's normalisers.
    """
    count = len(pairs.left)
    mine = torch.arange(pairs.first, pairs.first + count, device=pairs.left.device)
    every = torch.arange(len(pairs.all_left), device=pairs.left.device)
    hidden = torch.zeros((), dtype=torch.bool, device=pairs.left.device)
    if pairs.groups is not None:
        hidden = (pairs.groups[mine, None] == pairs.groups[None, :]) & (mine[:, None] != every[None, :])
    total = pairs.left.new_zeros(())
    for weight, rows, others in (
        (image_weight, pairs.left, pairs.all_right),
        (1 - image_weight, pairs.right, pairs.all_left),
    ):
        logits = (rows @ others.T / temperature).masked_fill(hidden, -torch.inf)
        total = total + weight * F.cross_entropy(logits, mine, reduction="sum")
    return total, count
