"""Compute the pair objectives tile by tile, without the matrix of similarities, and one-sided between processes.

A process holds its rows of both sides. Only the right rows are gathered. Every tile of similarities is computed twice,
once for the normalisers and once for the gradient, and never kept. This takes four products of (local, global, dim),
against six of autograd with both sides gathered. Sums have the precision of the features, float32 at least. In

    softmax  1/2 sum_i log sum_j exp S_ij  +  1/2 sum_j log sum_i exp S_ij  -  sum_i (mean of S_ij over partners j)
    sigmoid  sum_ij softplus S_ij  -  (sum of S_ij over partners i, j)

the partners' term is a dot product of each row with a sum over its group, so tiles need no mask.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.distributed import (
    gather_rows,
    max_over_processes,
    row_counts,
    scatter_sum,
    sum_over_processes,
    world,
)

_ROWS, _COLUMNS = 1024, 2048  # of a tile: 8 MiB in float32, which stays in the cache of a server's core


@dataclass(frozen=True)
class _Batch:
    """The input of both objectives. left: (local, dim). right: (global, dim), of all processes."""

    left: Tensor
    right: Tensor
    counts: list[int]
    first: int
    groups: Tensor | None  # (global,), numbered from 0 without gaps

    @property
    def mine(self) -> slice:
        return slice(self.first, self.first + len(self.left))


def tiled_infonce(
    left: Tensor, right: Tensor, scale: Tensor, groups: Tensor | None = None
) -> tuple[Tensor, int]:
    """Compute `infonce` in the memory of a tile.

    left, right: (local, dim), this process's rows, unit length; shares may be uneven. scale: (). groups: (local,), or
    None. Returns this process's part of the sum, and its number of rows: the parts of all processes over the global
    count are the loss. So are the gradients, after those of `scale` are summed.
    """
    return _TiledInfoNCE.apply(left, right, scale, groups), len(left)  # type: ignore[no-untyped-call]


def tiled_sigmoid(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, groups: Tensor | None = None
) -> tuple[Tensor, int]:
    """Compute `sigmoid` in the memory of a tile; as `tiled_infonce`, with `bias`: ()."""
    return _TiledSigmoid.apply(left, right, scale, bias, groups), len(left)  # type: ignore[no-untyped-call]


class _TiledInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, scale: Tensor, groups: Tensor | None) -> Tensor:
        batch = _gather(left, right, groups)
        scaled = batch.left * scale
        by_row, by_column = _normalisers(scaled, batch.right)
        counts = _partner_counts(batch)[:, None]
        partners = _partner_sums(batch)
        if batch.groups is not None:
            partners = partners / counts
        # The normalisers of the columns now cover all processes: each process adds those of its own rows.
        loss = (by_row.sum() + by_column[batch.mine].sum()) / 2 - _dot_products(scaled, partners).sum()
        if not any(ctx.needs_input_grad):
            return loss
        gradient_left = torch.zeros_like(batch.left)
        gradient_right = torch.zeros_like(batch.right)
        for rows, columns, logits in _tiles(scaled, batch.right):
            gradient = torch.exp(logits - by_row[rows, None])
            gradient += logits.sub_(by_column[None, columns]).exp_()
            gradient_left[rows].addmm_(gradient, batch.right[columns])
            gradient_right[columns].addmm_(gradient.T, scaled[rows])
        gradient_left = gradient_left.div_(2).sub_(partners)  # of the scaled rows
        gradient_right.div_(2)
        _subtract_from_partners(gradient_right, batch, scaled.div_(counts))
        _keep(ctx, batch, scale, gradient_left, gradient_right)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        left, right, scale = ctx.saved_tensors
        return outer[0] * left, outer[0] * right, outer[0] * scale, None


class _TiledSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes by position)
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, groups: Tensor | None
    ) -> Tensor:
        batch = _gather(left, right, groups)
        scaled = batch.left * scale
        partners = _partner_sums(batch)
        number = _partner_counts(batch).sum()  # of pairs of partners with a left row of this process
        loss = -_dot_products(scaled, partners).sum() - bias * number
        gradient_left = torch.zeros_like(batch.left)
        gradient_right = torch.zeros_like(batch.right)
        gradient_bias = -number
        for rows, columns, similarities in _tiles(scaled, batch.right):
            logits = similarities.add_(bias)
            loss = loss + F.softplus(logits).sum()
            gradient = logits.sigmoid_()
            gradient_bias = gradient_bias + gradient.sum()
            gradient_left[rows].addmm_(gradient, batch.right[columns])
            gradient_right[columns].addmm_(gradient.T, scaled[rows])
        gradient_left -= partners
        _subtract_from_partners(gradient_right, batch, scaled)
        _keep(ctx, batch, scale, gradient_left, gradient_right, gradient_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        left, right, scale, bias = ctx.saved_tensors
        return outer[0] * left, outer[0] * right, outer[0] * scale, outer[0] * bias, None


def _gather(left: Tensor, right: Tensor, groups: Tensor | None) -> _Batch:
    left, right = left.detach(), right.detach()
    counts = row_counts(len(left), left.device)
    first = sum(counts[: world().rank])
    if groups is not None:
        groups = torch.unique(gather_rows(groups, counts), return_inverse=True)[1]
    return _Batch(left, gather_rows(right, counts), counts, first, groups)


def _keep(ctx: Any, batch: _Batch, scale: Tensor, scaled_left: Tensor, right: Tensor, *more: Tensor) -> None:
    """Save the gradients, which are known before the backward pass."""
    # d/d scale of S = scale * left . right is the sum of gradient * S / scale: the product of the rows with
    # the gradient of the scaled rows.
    of_scale = _dot_products(scaled_left, batch.left).sum().to(scale.dtype)
    ctx.save_for_backward(scaled_left.mul_(scale), scatter_sum(right, batch.counts), of_scale, *more)


def _tiles(scaled: Tensor, right: Tensor) -> Any:
    """Yield each tile of similarities, with its rows and columns."""
    for top in range(0, len(scaled), _ROWS):
        rows = slice(top, min(top + _ROWS, len(scaled)))
        for start in range(0, len(right), _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, len(right)))
            yield rows, columns, scaled[rows] @ right[columns].T


def _normalisers(scaled: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return log sum exp of each local row over all columns, and of each column over the rows of all processes."""
    by_row = scaled.new_full((len(scaled),), -torch.inf)
    by_column = scaled.new_full((len(right),), -torch.inf)
    for rows, columns, logits in _tiles(scaled, right):
        by_row[rows] = torch.logaddexp(by_row[rows], logits.logsumexp(dim=1))
        by_column[columns] = torch.logaddexp(by_column[columns], logits.logsumexp(dim=0))
    if world().size > 1:
        largest = max_over_processes(by_column.clone())
        by_column = sum_over_processes((by_column - largest).exp_()).log_().add_(largest)
    return by_row, by_column


def _partner_sums(batch: _Batch) -> Tensor:
    """Return the sum of the right rows that belong to each local left row: (local, dim)."""
    if batch.groups is None:
        return batch.right[batch.mine]
    total = batch.right.new_zeros(int(batch.groups.max()) + 1, batch.right.shape[1])
    return total.index_add_(0, batch.groups, batch.right)[batch.groups[batch.mine]]


def _partner_counts(batch: _Batch) -> Tensor:
    """Return the number of partners of each local row: (local,)."""
    if batch.groups is None:
        return torch.ones_like(batch.left[:, 0])
    return torch.bincount(batch.groups)[batch.groups[batch.mine]].to(batch.left.dtype)


def _subtract_from_partners(gradient: Tensor, batch: _Batch, left: Tensor) -> None:
    """Subtract from each row of `gradient`, (global, dim), the sum of the local `left` rows that belong to it."""
    if batch.groups is None:
        gradient[batch.mine] -= left
        return
    total = left.new_zeros(int(batch.groups.max()) + 1, left.shape[1])
    gradient -= total.index_add_(0, batch.groups[batch.mine], left)[batch.groups]


def _dot_products(one: Tensor, other: Tensor) -> Tensor:
    """Return the dot product of each row with its counterpart, (rows, 1, 1), without an elementwise product."""
    return one[:, None, :] @ other[:, :, None]
