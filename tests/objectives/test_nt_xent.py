"""SimCLR's objective against slow loops, against transcribed library code, and its own pieces."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs


def unit(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


def slow_loss(first: Tensor, second: Tensor, temperature: float, groups: list[int] | None = None) -> float:
    """Equation 1 as loops over the 2N views."""
    count = len(first)
    views = [*first, *second]
    total = 0.0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        terms = []
        for k in range(2 * count):
            same_group = groups is not None and groups[k % count] == groups[i % count]
            if k == i or (same_group and k != partner):
                continue
            terms.append(math.exp(float(views[i] @ views[k]) / temperature))
        if groups is None:
            assert len(terms) == 2 * count - 1
        total -= math.log(math.exp(float(views[i] @ views[partner]) / temperature) / sum(terms))
    return total / (2 * count)


def mean(first: Tensor, second: Tensor, temperature: float = 0.1, groups: Tensor | None = None) -> Tensor:
    total, count = nt_xent(Pairs.whole(first, second, groups), temperature)
    return total / count


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 1.0])
def test_loss_equals_the_double_loop_over_views(temperature: float) -> None:
    first, second = unit(7, 5, 1), unit(7, 5, 2)
    slow = slow_loss(first, second, temperature)
    assert mean(first, second, temperature).item() == pytest.approx(slow, rel=1e-12)


def test_it_equals_one_cross_entropy_over_the_stacked_views() -> None:
    """The usual single-matrix form: 2N by 2N similarities, the diagonal at minus infinity."""
    first, second = unit(9, 6, 3), unit(9, 6, 4)
    views = torch.cat([first, second])
    logits = (views @ views.T / 0.2).fill_diagonal_(-torch.inf)
    target = torch.arange(18).roll(9)
    torch.testing.assert_close(mean(first, second, 0.2), F.cross_entropy(logits, target), rtol=1e-12, atol=0)


def test_the_positive_stays_in_the_normaliser_and_only_the_view_itself_leaves_it() -> None:
    same = unit(1, 8, 5).expand(16, 8)
    assert mean(same, same).item() == pytest.approx(math.log(2 * 16 - 1), rel=1e-12)


def test_it_is_the_mean_over_all_views_and_half_of_what_the_authors_code_reports() -> None:
    first, second = unit(5, 4, 6), unit(5, 4, 7)
    large = 1e9
    masks = torch.eye(5, dtype=torch.float64) * large
    labels = torch.arange(5)
    logits_aa, logits_bb = first @ first.T / 0.1 - masks, second @ second.T / 0.1 - masks
    logits_ab, logits_ba = first @ second.T / 0.1, second @ first.T / 0.1
    loss_a = F.cross_entropy(torch.cat([logits_ab, logits_aa], dim=1), labels)
    loss_b = F.cross_entropy(torch.cat([logits_ba, logits_bb], dim=1), labels)
    torch.testing.assert_close(2 * mean(first, second), loss_a + loss_b, rtol=1e-12, atol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    first, second = unit(4, 3, 8).requires_grad_(), unit(4, 3, 9).requires_grad_()
    groups = torch.tensor([0, 1, 0, 2])
    for given in (None, groups):
        assert torch.autograd.gradcheck(
            lambda a, b, given=given: nt_xent(Pairs.whole(a, b, given), 0.3)[0], (first, second)
        )


def test_neither_the_order_of_the_images_nor_that_of_the_two_views_matters() -> None:
    first, second, order = unit(8, 5, 10), unit(8, 5, 11), torch.randperm(8)
    torch.testing.assert_close(mean(first[order], second[order]), mean(first, second), rtol=1e-12, atol=0)
    torch.testing.assert_close(mean(second, first), mean(first, second), rtol=1e-12, atol=0)


def test_a_picture_that_is_twice_in_a_batch_is_a_false_negative_unless_its_group_says_so() -> None:
    first, second = unit(6, 5, 12), unit(6, 5, 13)
    first[3], second[3] = first[0], second[0]
    groups = [0, 1, 2, 0, 4, 5]
    known = mean(first, second, 0.1, torch.tensor(groups))
    assert known.item() == pytest.approx(slow_loss(first, second, 0.1, groups), rel=1e-12)
    assert known < mean(first, second, 0.1)
    torch.testing.assert_close(mean(first, second, 0.1, torch.arange(6)), mean(first, second, 0.1))


@pytest.mark.parametrize("shares", [[4, 4], [5, 2, 1]])
def test_shares_of_a_batch_add_up_to_the_whole(shares: list[int]) -> None:
    first, second = unit(8, 6, 14), unit(8, 6, 15)
    groups = torch.tensor([0, 1, 1, 2, 3, 0, 4, 5])
    total, seen = torch.zeros((), dtype=torch.float64), 0
    for share in shares:
        mine = slice(seen, seen + share)
        part, rows = nt_xent(Pairs(first[mine], second[mine], first, second, seen, groups), 0.1)
        total, seen = total + part, seen + rows
    torch.testing.assert_close(total / seen, mean(first, second, 0.1, groups), rtol=1e-12, atol=0)
