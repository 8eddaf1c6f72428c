"""ConVIRT's two directions against slow loops, cross-entropies, and CLIP's loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.directional import convirt
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs


def unit(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


def slow_direction(rows: Tensor, others: Tensor, temperature: float, groups: list[int]) -> float:
    total = 0.0
    for i in range(len(rows)):
        terms = [
            math.exp(float(rows[i] @ others[k]) / temperature)
            for k in range(len(others))
            if k == i or groups[k] != groups[i]
        ]
        total -= math.log(math.exp(float(rows[i] @ others[i]) / temperature) / sum(terms))
    return total / len(rows)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 2, 1, 0]])
def test_loss_equals_the_slow_double_loop_in_both_directions(groups: list[int]) -> None:
    image, text = unit(6, 5, 1), unit(6, 5, 2)
    total, count = convirt(Pairs.whole(image, text, torch.tensor(groups)), 0.1, 0.75)
    expected = 0.75 * slow_direction(image, text, 0.1, groups) + 0.25 * slow_direction(
        text, image, 0.1, groups
    )
    assert total.item() / count == pytest.approx(expected, rel=1e-12)


def test_lambda_one_is_cross_entropy_by_rows_zero_by_columns_and_a_half_is_clips_loss() -> None:
    image, text = unit(8, 5, 3), unit(8, 5, 4)
    pairs, mine = Pairs.whole(image, text), torch.arange(8)
    logits = image @ text.T / 0.1
    for weight, expected in ((1.0, F.cross_entropy(logits, mine)), (0.0, F.cross_entropy(logits.T, mine))):
        torch.testing.assert_close(convirt(pairs, 0.1, weight)[0] / 8, expected, rtol=1e-12, atol=0)
    clip, _ = infonce(pairs, torch.tensor(10.0, dtype=torch.float64))
    torch.testing.assert_close(convirt(pairs, 0.1, 0.5)[0], clip, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [0.0, 0.75, 1.0])
def test_gradients_reach_both_sides_at_any_lambda(weight: float) -> None:
    image, text = unit(5, 4, 5).requires_grad_(), unit(5, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: convirt(Pairs.whole(a, b), 0.2, weight)[0], (image, text))
    convirt(Pairs.whole(image, text), 0.2, weight)[0].backward()
    for side in (image, text):
        assert side.grad is not None
        assert side.grad.abs().sum() > 0


@pytest.mark.parametrize("shares", [[4, 4], [5, 2, 1]])
def test_shares_of_a_batch_add_up_to_the_whole(shares: list[int]) -> None:
    image, text = unit(8, 6, 7), unit(8, 6, 8)
    groups = torch.tensor([0, 1, 1, 2, 3, 0, 4, 5])
    whole, _ = convirt(Pairs.whole(image, text, groups), 0.1, 0.75)
    total, seen = torch.zeros((), dtype=torch.float64), 0
    for share in shares:
        mine = slice(seen, seen + share)
        part, rows = convirt(Pairs(image[mine], text[mine], image, text, seen, groups), 0.1, 0.75)
        total, seen = total + part, seen + rows
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=0)
