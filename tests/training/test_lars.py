"""LARS against a slow loop over plain numbers, and what is left out of it."""

import math

import pytest
import torch
from torch import Tensor, nn

from diptych.models.architectures import Architecture, LabelHead, VisionTransformer
from diptych.models.building import build_model
from diptych.training.optim.lars import LARS
from diptych.training.optim.optimizer import build_optimizer, parameter_groups
from diptych.training.optim.optimizer_settings import AdamWSettings, LarsSettings

SETTINGS = LarsSettings(learning_rate=0.3, weight_decay=1e-2, momentum=0.9, trust=1e-3)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 7)).double()


def gradient(value: Tensor, step: int) -> Tensor:
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def slow_lars(weights: list[float], gradients: list[list[float]], *, excluded: bool) -> list[float]:
    """The authors' update, number by number: decay into the gradient, trust ratio, rate inside the momentum."""
    velocity = [0.0] * len(weights)
    for step, given in enumerate(gradients):
        rate = 0.3 / (1 + step)
        decay = 0.0 if excluded else 1e-2
        direction = [g + decay * w for g, w in zip(given, weights, strict=True)]
        trust = 1.0
        if not excluded:
            weight_norm = math.sqrt(sum(w * w for w in weights))
            gradient_norm = math.sqrt(sum(d * d for d in direction))
            trust = 1e-3 * weight_norm / gradient_norm if weight_norm > 0 and gradient_norm > 0 else 1.0
        velocity = [0.9 * v + rate * trust * d for v, d in zip(velocity, direction, strict=True)]
        weights = [w - v for w, v in zip(weights, velocity, strict=True)]
    return weights


def test_updates_equal_the_slow_loop_for_matrices_and_for_what_is_excluded() -> None:
    model = small_model()
    before = {name: value.detach().flatten().tolist() for name, value in model.named_parameters()}
    given: dict[str, list[list[float]]] = {name: [] for name in before}
    optimizer = build_optimizer(model, SETTINGS)
    assert isinstance(optimizer, LARS)
    for step in range(4):
        for number, (name, value) in enumerate(model.named_parameters()):
            value.grad = gradient(value, 10 * step + number)
            given[name].append(value.grad.flatten().tolist())
        for group in optimizer.param_groups:
            group["lr"] = 0.3 / (1 + step) * group["lr_scale"]
        optimizer.step()
    for name, value in model.named_parameters():
        expected = slow_lars(before[name], given[name], excluded=value.ndim < 2)
        # The norms are in float32: a relative error of 1e-7 of a step that is a thousandth of the weight.
        torch.testing.assert_close(
            value.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-9
        )


def test_the_first_step_of_a_matrix_is_its_share_whatever_the_gradients_size() -> None:
    for size in (1e-6, 1.0, 1e6):
        model = nn.Linear(6, 8, bias=False)
        before = model.weight.detach().clone()
        model.weight.grad = size * torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        LARS([{"params": [model.weight], "weight_decay": 0.0, "lr": 0.5}]).step()
        moved = (model.weight.detach() - before).norm() / before.norm()
        assert float(moved) == pytest.approx(0.5 * 1e-3, rel=1e-4)


def test_a_bias_moves_by_its_gradient_and_zero_weights_are_not_stuck() -> None:
    bias = nn.Parameter(torch.full((3,), 2.0))
    zero = nn.Parameter(torch.zeros(2, 2))
    still = nn.Parameter(torch.ones(2, 2))
    bias.grad, zero.grad, still.grad = torch.ones(3), torch.ones(2, 2), torch.zeros(2, 2)
    LARS([{"params": [bias, zero, still], "weight_decay": 0.0, "lr": 0.1}]).step()
    torch.testing.assert_close(bias.detach(), torch.full((3,), 1.9))
    torch.testing.assert_close(zero.detach(), torch.full((2, 2), -0.1))
    assert torch.equal(still.detach(), torch.ones(2, 2))


def test_gains_and_biases_do_not_decay() -> None:
    model = small_model()
    for group in parameter_groups(model, SETTINGS):
        for value in group["params"]:
            assert group["weight_decay"] == (1e-2 if value.ndim > 1 else 0.0)


def test_a_run_goes_on_from_its_saved_momentum_to_the_bit() -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for step in numbers:
            for number, value in enumerate(model.parameters()):
                value.grad = gradient(value, 10 * step + number)
            optimizer.step()

    whole, cut = small_model(), small_model()
    optimizer = build_optimizer(whole, SETTINGS)
    steps(whole, optimizer, range(4))
    first = build_optimizer(cut, SETTINGS)
    steps(cut, first, range(2))
    second = build_optimizer(cut, SETTINGS)
    second.load_state_dict(first.state_dict())
    steps(cut, second, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_a_head_of_labels_that_begins_at_zero_moves_by_its_gradient_and_does_not_decay() -> None:
    architecture = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=32, patch=16, width=16, layers=1, heads=2),
        text=LabelHead(classes=("a", "b")),
    )
    model = build_model(architecture)
    optimizer = build_optimizer(model, SETTINGS)
    for _ in range(2):
        for value in model.parameters():
            value.grad = torch.ones_like(value)
        optimizer.step()
    # 0.3, and then 0.9 of it again besides; a matrix that is adapted moves by a thousandth of its size.
    head = dict(model.named_parameters())["text.weight"].detach()
    torch.testing.assert_close(head, torch.full((2, 16), -0.3 - 0.57))
    with_adam = parameter_groups(model, AdamWSettings(weight_decay=0.2))
    decayed = {id(value) for group in with_adam if group["weight_decay"] for value in group["params"]}
    assert id(dict(model.named_parameters())["text.weight"]) in decayed
