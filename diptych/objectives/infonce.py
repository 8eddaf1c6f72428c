"""The contrastive objective of CLIP (Radford et al. 2021, Figure 3), also called InfoNCE (van den Oord et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def infonce(pairs: Pairs, scale: Tensor) -> tuple[Tensor, int]:
    """Return the symmetric cross-entropy of matching every row with its partner among the global batch.

    scale: (), the inverse temperature, already exponentiated.
    Returns the sum over this process's rows of the mean of both directions, and the number of these rows: the sums of
    all processes over the global count are the loss. With `pairs.groups`, the target of a row is uniform over the
    partners of its group (the supervised contrastive loss "out" of Khosla et al. 2020, between two modalities). With
    unique ids this is CLIP's loss, bit for bit.
    """
    to_right = scale * pairs.left @ pairs.all_right.T
    to_left = scale * pairs.right @ pairs.all_left.T
    count = len(pairs.left)
    mine = torch.arange(pairs.first, pairs.first + count, device=to_right.device)
    if pairs.groups is None:
        loss = F.cross_entropy(to_right, mine, reduction="sum") + F.cross_entropy(
            to_left, mine, reduction="sum"
        )
        return loss / 2, count
    positive = pairs.groups[mine, None] == pairs.groups[None, :]  # (local, global)
    partners = positive.sum(dim=1)
    loss = to_right.new_zeros(())
    for logits in (to_right, to_left):
        log_likelihood = F.log_softmax(logits, dim=1).masked_fill(~positive, 0.0).sum(dim=1)
        loss = loss - (log_likelihood / partners).sum()
    return loss / 2, count
