"""Autocast, and the loss scale beside PyTorch's own."""

import pytest
import torch
from torch import nn

from diptych.training.optim.mixed_precision import LossScale, Precision, autocast, loss_scale

HALF: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@pytest.mark.parametrize("precision", HALF)
def test_products_are_in_the_precision_and_norms_are_in_float32(precision: Precision) -> None:
    linear, norm = nn.Linear(8, 8), nn.LayerNorm(8)
    with autocast("cpu", precision):
        product = linear(torch.randn(2, 8))
        assert product.dtype == HALF[precision]
        assert norm(product.float()).dtype == torch.float32
    assert linear.weight.dtype == torch.float32


def test_float32_inside_an_autocast_is_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16), autocast("cpu", "float32"):
        assert nn.Linear(8, 8)(torch.randn(2, 8)).dtype == torch.float32


def test_the_scale_follows_the_rule_of_torchs_own() -> None:
    interval = 3
    ours = LossScale(2.0**16, interval)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=interval)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    finite = [True] * 7 + [False] + [True] * 2 + [False, False] + [True] * 9
    for good in finite:
        weight.grad = torch.full((1,), 1.0 if good else float("inf"))
        theirs.scale(torch.zeros(1))
        theirs.step(optimizer)
        theirs.update()
        if good:
            ours.succeeded()
        else:
            assert ours.overflowed()
        assert ours.scale == theirs.get_scale()
        # PyTorch counts from zero after growing as well as after an overflow.
        assert ours.good_steps == theirs.state_dict()["_growth_tracker"]


def test_the_first_scale_and_the_interval_are_torchs_own() -> None:
    ours, theirs = loss_scale("float16"), torch.amp.GradScaler("cpu")
    assert (ours.scale, ours.growth_interval) == (65_536.0, theirs.get_growth_interval())
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precisions_with_the_range_of_float32_are_not_scaled(precision: Precision) -> None:
    scale = loss_scale(precision)
    for _ in range(5_000):
        scale.succeeded()
    assert scale.scale == 1
    assert not scale.overflowed()
    assert scale.scale == 1


def test_an_overflow_counts_as_a_failure_once_the_scale_is_one() -> None:
    scale = loss_scale("float16")
    curable = [scale.overflowed() for _ in range(20)]
    assert curable == [True] * 16 + [False] * 4
    assert scale.scale == 1


def test_scaling_and_unscaling_change_no_bit() -> None:
    weights = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(2))]
    loss = weights[0].exp().sum() * weights[1].sin()  # the third has no gradient
    expected = torch.autograd.grad(loss, weights[:2])
    scale = LossScale(2.0**16, 2_000)
    scale.scaled(weights[0].exp().sum() * weights[1].sin()).backward()
    scale.unscale(weights)
    for weight, gradient in zip(weights, expected, strict=False):
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient)
    assert weights[2].grad is None


def test_a_gradient_that_float16_would_lose_survives_by_the_scale() -> None:
    """The loss scale's reason to exist, and its broken twin: the same gradient without it."""
    linear = nn.Linear(4, 1, bias=False)
    found = {}
    for name, scale in (("scaled", LossScale(2.0**16, 2_000)), ("bare", LossScale(1.0, None))):
        linear.zero_grad()
        with autocast("cpu", "float16"):
            output = linear(torch.ones(2, 4))
        scale.scaled(output.float().sum() * 1e-8).backward()
        scale.unscale(linear.parameters())
        assert linear.weight.grad is not None
        found[name] = linear.weight.grad.clone()
    torch.testing.assert_close(found["scaled"], torch.full((1, 4), 2e-8), rtol=1e-3, atol=0)
    assert (found["bare"] == 0).all()


def test_an_overflow_stays_visible_after_unscaling() -> None:
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([1.0, float("inf"), float("nan")])
    LossScale(2.0**10, 2_000).unscale([weight])
    assert torch.isfinite(weight.grad).tolist() == [True, False, False]


def test_the_state_is_two_numbers_and_goes_on_where_it_stopped() -> None:
    scale = LossScale(2.0**16, 10)
    for _ in range(7):
        scale.succeeded()
    state = scale.state()
    assert len(state) == 2
    resumed = LossScale(2.0**16, 10)
    resumed.load({**state, "step": 7.0})
    for _ in range(3):
        scale.succeeded()
        resumed.succeeded()
    assert resumed.scale == scale.scale == 2.0**17
    assert resumed.state() == scale.state()
