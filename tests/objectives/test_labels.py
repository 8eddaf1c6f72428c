"""The cross-entropy of labels against a slow loop."""

import math

import pytest
import torch

from diptych.objectives.cross_entropy import label_likelihood


def logits(rows: int = 6, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_equals_the_slow_double_loop_and_rows_of_no_known_class_do_not_count(smoothing: float) -> None:
    given, labels = logits(), [2, -1, 0, 3, -1, 1]
    expected = 0.0
    for row, label in zip(given.tolist(), labels, strict=True):
        if label < 0:
            continue
        total = math.log(sum(math.exp(value) for value in row))
        for place, value in enumerate(row):
            target = (1 - smoothing) * (place == label) + smoothing / len(row)
            expected -= target * (value - total)
    found, count = label_likelihood(given, torch.tensor(labels), smoothing)
    assert count == 4
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_equal_logits_cost_the_logarithm_of_the_classes() -> None:
    total, count = label_likelihood(torch.zeros(5, 7, dtype=torch.float64), torch.arange(5))
    assert total.item() / count == pytest.approx(math.log(7), rel=1e-12)


def test_gradients_are_those_of_finite_differences_and_zero_where_no_class_is_known() -> None:
    given, labels = logits().requires_grad_(), torch.tensor([2, -1, 0, 3, -1, 1])
    assert torch.autograd.gradcheck(lambda x: label_likelihood(x, labels, 0.1)[0], (given,))
    label_likelihood(given, labels)[0].backward()
    assert given.grad is not None
    assert not given.grad[labels < 0].any()
    nothing, count = label_likelihood(given, torch.full((6,), -1))
    assert (nothing.item(), count) == (0.0, 0)
