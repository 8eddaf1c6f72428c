"""SHRe's transfer and ranking against loops over rows."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs
from diptych.objectives.transfer_and_ranking import cosine_ranking, transfer

ROWS = 6
PRESENT = torch.tensor([True, False, True, True, False, True])
GROUPS = torch.tensor([0, 1, 0, 2, 3, 4])


def sides() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(ROWS, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    return F.normalize(left, dim=1), F.normalize(right, dim=1)


def slow(left: Tensor, right: Tensor, margin: float, allowed: list[tuple[int, int]]) -> float:
    total = 0.0
    for i, j in allowed:
        own = sum(a * b for a, b in zip(left[i].tolist(), right[i].tolist(), strict=True))
        for row, other in ((left[i], right[j]), (right[i], left[j])):
            wrong = sum(a * b for a, b in zip(row.tolist(), other.tolist(), strict=True))
            total += max(0.0, margin - own + wrong)
    return total


@pytest.mark.parametrize("margin", [0.1, 0.7])
def test_ranking_equals_double_loop_with_absent_rows_and_groups_left_out(margin: float) -> None:
    left, right = sides()
    every = [(i, j) for i in range(ROWS) for j in range(ROWS) if i != j]
    total, count = cosine_ranking(Pairs.whole(left, right), margin)
    assert count == ROWS
    assert total.item() == pytest.approx(slow(left, right, margin, every), rel=1e-12)
    both = [(i, j) for i, j in every if PRESENT[i] and PRESENT[j]]
    found = cosine_ranking(Pairs.whole(left, right), margin, PRESENT)[0].item()
    assert found == pytest.approx(slow(left, right, margin, both), rel=1e-12)
    apart = [(i, j) for i, j in every if GROUPS[i] != GROUPS[j]]
    found = cosine_ranking(Pairs.whole(left, right, GROUPS), margin)[0].item()
    assert found == pytest.approx(slow(left, right, margin, apart), rel=1e-12)


def test_ranking_is_zero_where_every_pair_keeps_the_margin_and_only_violations_have_a_gradient() -> None:
    left = torch.eye(4, dtype=torch.float64).requires_grad_()
    right = torch.eye(4, dtype=torch.float64).requires_grad_()
    total, _ = cosine_ranking(Pairs.whole(left, right), 0.5)
    total.backward()
    assert total.item() == 0
    assert left.grad is not None
    assert not left.grad.any()
    moved = torch.eye(4, dtype=torch.float64)
    moved[0] = F.normalize(torch.tensor([0.7, 0.6, 0.0, 0.0], dtype=torch.float64), dim=0)
    left, right = torch.eye(4, dtype=torch.float64).requires_grad_(), moved.requires_grad_()
    cosine_ranking(Pairs.whole(left, right), 0.5)[0].backward()
    assert left.grad is not None
    assert left.grad[:2].any(dim=1).all()  # the pair (0, 1) violates it
    assert not left.grad[2:].any()


def test_shares_of_a_batch_add_up_to_the_whole_ranking() -> None:
    left, right = sides()
    whole = cosine_ranking(Pairs.whole(left, right, GROUPS), 0.4, PRESENT)[0]
    parts = [
        cosine_ranking(Pairs(left[rows], right[rows], left, right, rows.start, GROUPS), 0.4, PRESENT)[0]
        for rows in (slice(0, 4), slice(4, 6))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)


def test_transfer_equals_loop_and_is_zero_where_both_agree() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(ROWS, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    teacher = other.softmax(dim=1)
    expected = 0.0
    for row in range(ROWS):
        chances = logits[row].softmax(dim=0).tolist()
        if PRESENT[row]:
            expected += sum(g * math.log(g / f) for g, f in zip(teacher[row].tolist(), chances, strict=True))
    total, count = transfer(logits, teacher, PRESENT)
    assert count == ROWS
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert transfer(other, teacher)[0].item() == pytest.approx(0, abs=1e-12)
    sure = torch.eye(5, dtype=torch.float64)[:3]
    found = transfer(logits[:3], sure)[0].item()  # 0 log 0 is nothing
    assert found == pytest.approx(F.cross_entropy(logits[:3], torch.arange(3), reduction="sum").item())


def test_gradients_equal_finite_differences() -> None:
    left, right = (side.requires_grad_() for side in sides())
    assert torch.autograd.gradcheck(
        lambda a, b: cosine_ranking(Pairs.whole(a, b, GROUPS), 0.37, PRESENT)[0], (left, right)
    )
    logits = torch.randn(
        3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    ).requires_grad_()
    teacher = torch.full((3, 4), 0.25, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: transfer(x, teacher)[0], logits)
