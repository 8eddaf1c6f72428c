"""The sigmoid objective against loops over pairs."""

import math

import pytest
import torch
import torch.nn.functional as F

from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid


@pytest.mark.parametrize("groups", [None, [0, 1, 0, 2, 2]])
def test_loss_equals_slow_loop(groups: list[int] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        F.normalize(torch.randn(5, 4, dtype=torch.float64, generator=generator), dim=-1) for _ in "ab"
    )
    scale, bias = 10.0, -8.0
    expected = 0.0
    for row in range(5):
        for column in range(5):
            same = row == column if groups is None else groups[row] == groups[column]
            logit = scale * float(left[row] @ right[column]) + bias
            expected += math.log1p(math.exp(-logit if same else logit))
    ids = None if groups is None else torch.tensor(groups)
    total, count = sigmoid(
        Pairs.whole(left, right, ids),
        torch.tensor(scale, dtype=torch.float64),
        torch.tensor(bias, dtype=torch.float64),
    )
    assert count == 5
    assert total.item() == pytest.approx(expected, rel=1e-12)


def test_gradients_equal_finite_differences() -> None:
    left, right = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in "ab")
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)

    def function(*inputs: torch.Tensor) -> torch.Tensor:
        return sigmoid(Pairs.whole(inputs[0], inputs[1]), inputs[2], inputs[3])[0]

    assert torch.autograd.gradcheck(function, (left, right, scale, bias))


def test_shares_of_a_batch_add_up_to_the_whole() -> None:
    left, right = (torch.randn(7, 3, dtype=torch.float64) for _ in "ab")
    scale, bias = torch.tensor(3.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    whole, _ = sigmoid(Pairs.whole(left, right), scale, bias)
    parts = [
        sigmoid(Pairs(left[mine], right[mine], left, right, mine.start), scale, bias)[0]
        for mine in (slice(0, 4), slice(4, 7))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
