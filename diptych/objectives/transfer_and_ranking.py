"""The two objectives of "See, Hear, and Read" (Aytar, Vondrick and Torralba 2017): transfer and ranking."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def transfer(logits: Tensor, teacher: Tensor, present: Tensor | None = None) -> tuple[Tensor, int]:
    """Return KL(g(y) || f(x)), between a teacher's classes of the paired image and those of a modality.

    logits: (rows, classes), of any modality. teacher: (rows, classes), probabilities that sum to 1. present: (rows,),
    bool, the rows that have the modality; all by default.
    Returns the sum over this process's rows, in nats, and their number, absent ones included.
    """
    surprise = F.kl_div(logits.log_softmax(dim=1), teacher, reduction="none").sum(dim=1)
    if present is not None:
        surprise = surprise * present
    return surprise.sum(), len(logits)


def cosine_ranking(pairs: Pairs, margin: float, present: Tensor | None = None) -> tuple[Tensor, int]:
    """Return the ranking loss with a margin between a row's own partner and those of other rows, in both directions.

    It is the sum over i and j != i of max(0, margin - cos(x_i, y_i) + cos(x_i, y_j)), with x left and y right, and then
    exchanged. There is no temperature, and a pair beyond the margin does not contribute to the gradient.

    pairs: unit length. margin: of cosines. present: (global,), bool, the rows that have both modalities; all by
    default.
    With `pairs.groups`, rows of one group are not ranked against each other.
    Returns the sum over this process's rows and their number, absent ones included.
    """
    count = len(pairs.left)
    mine = torch.arange(pairs.first, pairs.first + count, device=pairs.left.device)
    every = torch.arange(len(pairs.all_left), device=pairs.left.device)
    ranked = mine[:, None] != every[None, :]  # (local, global)
    if pairs.groups is not None:
        ranked = pairs.groups[mine, None] != pairs.groups[None, :]
    if present is not None:
        ranked = ranked & present[mine, None] & present[None, :]
    own = (pairs.left * pairs.right).sum(dim=1, keepdim=True)
    loss = own.new_zeros(())
    for row, others in ((pairs.left, pairs.all_right), (pairs.right, pairs.all_left)):
        loss = loss + (margin - own + row @ others.T).clamp(min=0).masked_fill(~ranked, 0.0).sum()
    return loss, count
