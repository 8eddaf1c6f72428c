"""The two objectives of "See, Hear, and Read" (Aytar, Vondrick and Torralba 2017): transfer and ranking."""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def transfer(logits: Tensor, teacher: Tensor, present: Tensor | None = None) -> tuple[Tensor, int]:
    """KL(g(y) || f(x)): how far a modality's classes are from those that a teacher sees in the paired image.

    logits: (rows, classes), of any modality. teacher: (rows, classes), probabilities that sum to 1. present: (rows,),
    bool, rows that have the modality; all when not given.
    Returns the sum over this process's rows, in nats, and their number, absent ones included.
    """
    surprise = F.kl_div(logits.log_softmax(dim=1), teacher, reduction="none").sum(dim=1)
    if present is not None:
        surprise = surprise * present
    return surprise.sum(), len(logits)


def cosine_ranking(pairs: Pairs, margin: float, present: Tensor | None = None) -> tuple[Tensor, int]:
    """How much nearer than by a margin the partners of other rows are than a row's own, both ways.

    sum over i and j != i of max(0, margin - cos(x_i, y_i) + cos(x_i, y_j)), with x left and y right and then the other
    way round. There is no temperature, and a pair that keeps its distance has no part in the gradient.

    pairs: unit length. margin: of cosines. present: (global,), bool, rows that have both modalities; all when not
    given.
    Where `pairs.groups` is given, rows of one group are not ranked against each other.
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
