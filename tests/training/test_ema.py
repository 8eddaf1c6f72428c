"""The average of the weights, beside a slow loop."""

import copy

import pytest
import torch
from torch import Tensor, nn

from diptych.errors import CheckpointError, SettingsError
from diptych.training.optim.ema import Ema


class Small(nn.Module):
    """Weights of several shapes, one of them frozen, and a batch norm's buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)


def small_model(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def move(model: nn.Module) -> None:
    """What an optimizer step does to weights and buffers."""
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            value.add_(torch.randn_like(value, dtype=torch.float32).mul(3).to(value.dtype))


def contents(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_average_equals_a_slow_loop_with_its_warm_up() -> None:
    model = small_model()
    ema = Ema(model, 0.9)
    slow = {name: value.double().flatten().tolist() for name, value in model.named_parameters()}
    for step in range(1, 151):
        move(model)
        ema.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))  # reaches 0.9 at step 80
        for name, value in model.named_parameters():
            slow[name] = [
                decay * old + (1 - decay) * new
                for old, new in zip(slow[name], value.double().flatten().tolist(), strict=True)
            ]
    state = ema.state()
    for name, expected in slow.items():
        assert state[name].dtype == torch.float32
        # 150 roundings to float32 of numbers up to about 50, most of which fade again.
        torch.testing.assert_close(
            state[name].double().flatten(), torch.tensor(expected).double(), rtol=2e-6, atol=2e-5
        )


def test_buffers_are_copied_and_not_averaged() -> None:
    model = small_model()
    ema = Ema(model, 0.99)
    for step in range(1, 4):
        move(model)
        ema.update(model, step)
    for name, value in model.named_buffers():
        assert torch.equal(ema.state()[name], value)
        assert ema.state()[name].dtype == value.dtype


def test_the_model_is_never_changed_by_an_update() -> None:
    model = small_model()
    ema = Ema(model, 0.5)
    move(model)
    before = contents(model)
    ema.update(model, 1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(ema.state()["scale"], model.scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_swapped_weights_come_back_to_the_bit(dtype: torch.dtype) -> None:
    model = small_model().to(dtype)
    ema = Ema(model, 0.9)
    move(model)
    ema.update(model, 1)
    move(model)
    own, averaged = contents(model), {name: value.clone() for name, value in ema.state().items()}
    storages = [value.data_ptr() for value in model.parameters()]
    with ema.swapped(model):
        for name, value in model.state_dict().items():
            assert torch.equal(value, averaged[name].to(value.dtype)), name
        assert [value.data_ptr() for value in model.parameters()] == storages
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name]), name
        assert torch.equal(ema.state()[name], averaged[name]), name


def test_swapped_weights_come_back_after_an_error() -> None:
    model = small_model()
    ema = Ema(model, 0.9)
    move(model)
    own = contents(model)
    with pytest.raises(ZeroDivisionError), ema.swapped(model):
        _ = 1 / 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name])


def test_a_saved_average_goes_on_as_the_unbroken_one() -> None:
    model = small_model()
    ema = Ema(model, 0.99)
    move(model)
    ema.update(model, 1)
    saved = copy.deepcopy(ema.state())
    resumed = Ema(small_model(seed=5), 0.99)
    resumed.load(saved)
    move(model)
    ema.update(model, 2)
    resumed.update(model, 2)
    assert resumed.state().keys() == ema.state().keys() == dict(model.state_dict()).keys()
    for name, value in ema.state().items():
        assert torch.equal(resumed.state()[name], value)


def test_an_average_of_another_model_is_refused_and_changes_nothing() -> None:
    ema = Ema(small_model(), 0.9)
    before = copy.deepcopy(ema.state())
    missing = {name: torch.zeros_like(value) for name, value in before.items() if name != "scale"}
    reshaped = {name: torch.zeros_like(value) for name, value in before.items()} | {"frozen": torch.zeros(4)}
    for wrong, name in ((missing, "scale"), (reshaped, "frozen")):
        with pytest.raises(CheckpointError, match=name):
            ema.load(wrong)
    for name, value in ema.state().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(SettingsError, match="ema"):
        Ema(small_model(), decay)
