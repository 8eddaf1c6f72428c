"""Log losses, their gradients and second derivatives against PyTorch's own differentiation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.evaluation.probes.log_losses import AnyOf, Likelihood, OneOf

COUNT, CLASSES = 12, 4
ROWS = slice(3, 11)
TARGET = torch.arange(COUNT) % CLASSES
RELEVANT = torch.arange(COUNT * CLASSES).reshape(COUNT, CLASSES) % 3 == 0
JUDGED = torch.arange(COUNT * CLASSES).reshape(COUNT, CLASSES) % 5 > 0
LIKELIHOODS: list[Likelihood] = [OneOf(TARGET, CLASSES), AnyOf(RELEVANT, JUDGED)]


def plain(likelihood: Likelihood, logits: Tensor) -> Tensor:
    """The sum of the losses of `ROWS`, as PyTorch has them."""
    if isinstance(likelihood, OneOf):
        return F.cross_entropy(logits.T, TARGET[ROWS], reduction="sum")
    each = F.binary_cross_entropy_with_logits(logits.T, RELEVANT[ROWS].to(logits.dtype), reduction="none")
    return each[JUDGED[ROWS]].sum()


def some_logits() -> Tensor:
    return 3 * torch.randn(CLASSES, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_losses_and_derivatives_equal_pytorchs(likelihood: Likelihood) -> None:
    logits = some_logits()
    change = some_logits().flip(0)
    total, gradient = likelihood.loss(logits.clone(), ROWS)
    torch.testing.assert_close(total, plain(likelihood, logits))
    expected, turned = torch.autograd.functional.hvp(lambda z: plain(likelihood, z), logits, change)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(
        gradient, torch.autograd.functional.jacobian(lambda z: plain(likelihood, z), logits)
    )
    torch.testing.assert_close(likelihood.turn(logits.clone(), change.clone(), ROWS), turned)
    hessian = torch.autograd.functional.hessian(lambda z: plain(likelihood, z), logits)
    own = torch.einsum("kmkm->k", hessian)
    torch.testing.assert_close(likelihood.curvature(logits, ROWS), own)


def test_a_loss_far_below_the_precision_of_a_logit_is_exact() -> None:
    # The right class leads by 40 nats: a loss of 3 e^-40, which 40 less the logarithm of the sum would round to 0.
    logits = torch.zeros(CLASSES, 1, dtype=torch.float64)
    logits[int(TARGET[0])] = 40
    total, gradient = LIKELIHOODS[0].loss(logits.clone(), slice(0, 1))
    assert float(total) == pytest.approx(3 * math.exp(-40), rel=1e-12)
    assert float(gradient[int(TARGET[0]), 0]) == pytest.approx(-3 * math.exp(-40), rel=1e-12)
    signed = torch.where(RELEVANT[:1].T, 40.0, -40.0).double()
    total, gradient = LIKELIHOODS[1].loss(signed, slice(0, 1))
    right = int(JUDGED[0].sum()) * math.exp(-40)
    assert float(total) == pytest.approx(right, rel=1e-12)
    assert float(gradient.abs().sum()) == pytest.approx(right, rel=1e-12)
