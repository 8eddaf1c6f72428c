"""The contrastive objective against slow loops, the library's cross-entropy, and its own pieces."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs

SCALE = torch.tensor(14.3)


def unit(rows: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return F.normalize(
        torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1
    )


def slow_loss(left: Tensor, right: Tensor, scale: float, groups: list[int]) -> float:
    """Figure 3 of the paper as loops over pairs, with a uniform target over the partners of a group."""
    count = len(left)
    total = 0.0
    for one, other in ((left, right), (right, left)):
        for row in range(count):
            logits = [scale * float(one[row] @ other[column]) for column in range(count)]
            normaliser = math.log(sum(math.exp(logit) for logit in logits))
            partners = [column for column in range(count) if groups[column] == groups[row]]
            total += sum(normaliser - logits[column] for column in partners) / len(partners)
    return total / (2 * count)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 2, 2, 2, 3]])
def test_loss_equals_slow_loop(groups: list[int]) -> None:
    left, right = unit(7, 5, 1, torch.float64), unit(7, 5, 2, torch.float64)
    total, count = infonce(Pairs.whole(left, right, torch.tensor(groups)), SCALE.double())
    # float64 sums of 14 terms: 1e-12 leaves three digits for the order of summation.
    assert total.item() / count == pytest.approx(
        slow_loss(left, right, float(SCALE), groups), rel=1e-6, abs=0
    )
    exact = slow_loss(left, right, SCALE.double().item(), groups)
    assert total.item() / count == pytest.approx(exact, rel=1e-12, abs=0)


def test_unique_groups_give_the_plain_loss_to_the_bit() -> None:
    left, right = unit(64, 16, 3), unit(64, 16, 4)
    plain, _ = infonce(Pairs.whole(left, right), SCALE)
    grouped, _ = infonce(Pairs.whole(left, right, torch.randperm(64)), SCALE)
    rows, columns = (
        F.cross_entropy(logits, torch.arange(64), reduction="none").sum()
        for logits in (SCALE * left @ right.T, SCALE * right @ left.T)
    )
    assert torch.equal(grouped, (rows + columns) / 2)
    # cross_entropy(reduction="sum") may add the rows in another order than `.sum()`.
    torch.testing.assert_close(plain, grouped, rtol=1e-6, atol=0)


def test_gradients_equal_those_of_the_slow_formula() -> None:
    groups = torch.tensor([0, 1, 0, 2, 2, 3])
    left, right = unit(6, 4, 5, torch.float64).requires_grad_(), unit(6, 4, 6, torch.float64).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def function(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
        return infonce(Pairs.whole(left, right, groups), scale)[0]

    assert torch.autograd.gradcheck(function, (left, right, scale))


@pytest.mark.parametrize("shares", [[8], [4, 4], [5, 2, 1]])
def test_shares_of_a_batch_add_up_to_the_whole(shares: list[int]) -> None:
    left, right = unit(8, 6, 7, torch.float64), unit(8, 6, 8, torch.float64)
    groups = torch.tensor([0, 1, 1, 2, 3, 0, 4, 5])
    whole, count = infonce(Pairs.whole(left, right, groups), SCALE.double())
    total, seen = torch.zeros((), dtype=torch.float64), 0
    for share in shares:
        mine = slice(seen, seen + share)
        part, rows = infonce(Pairs(left[mine], right[mine], left, right, seen, groups), SCALE.double())
        total, seen = total + part, seen + rows
    assert seen == count
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=0)


def test_loss_of_equal_embeddings_is_the_log_of_the_batch() -> None:
    row = unit(1, 8, 9).expand(32, 8)
    total, count = infonce(Pairs.whole(row, row), SCALE)
    assert total.item() / count == pytest.approx(math.log(32), rel=1e-5)
