"""The sigmoid objective of SigLIP (Zhai et al. 2023, equation 1 and algorithm 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def sigmoid(pairs: Pairs, scale: Tensor, bias: Tensor) -> tuple[Tensor, int]:
    """Classify every pair of the global batch independently as matching or not.

    scale: (), the inverse temperature, already exponentiated. bias: (), added to every scaled similarity.
    Returns the sum over this process's left rows of -log sigmoid(z (scale left . right + bias)) against every right
    row, with z = 1 for partners and -1 otherwise, and the number of these rows. With `pairs.groups`, all rows of a
    group are partners of each other.
    """
    logits = scale * pairs.left @ pairs.all_right.T + bias  # (local, global)
    count = len(pairs.left)
    mine = torch.arange(pairs.first, pairs.first + count, device=logits.device)
    groups = pairs.groups
    if groups is None:
        groups = torch.arange(len(pairs.all_right), device=logits.device)
    partners = groups[mine, None] == groups[None, :]
    return -F.logsigmoid(torch.where(partners, logits, -logits)).sum(), count
