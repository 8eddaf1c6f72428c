"""Linear maps through oneDNN: where they apply, and that they are equal."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from diptych.models.layers import linear as module
from diptych.models.layers.linear import Linear, linear


class Operators(TorchDispatchMode):
    """Records the operators that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def operators(x: Tensor, weight: Tensor) -> set[str]:
    seen = Operators()
    with seen:
        linear(x, weight)
    return seen.names


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 7, 48), torch.randn(32, 48), torch.randn(32)


def test_float32_inference_on_a_cpu_runs_in_onednn(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, _ = tensors
    assert hasattr(torch.ops.mkldnn, "_linear_pointwise"), "PyTorch renamed it: find the new name"
    with torch.no_grad():
        assert ("mkldnn::_linear_pointwise" in operators(x, weight)) == module.HAS_ONEDNN
        assert "mkldnn::_linear_pointwise" not in operators(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
    assert "mkldnn::_linear_pointwise" not in operators(x, weight), "it has no gradient"


def test_onednn_maps_as_pytorch_does(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias = tensors
    inputs = {
        "batch of texts": x,
        "one row": x[0, :1],
        "no rows": x[:, :0],
        "transposed": x.transpose(0, 1),
        "every other row": x[:, ::2],
    }
    with torch.no_grad():
        for name, value in inputs.items():
            for some_bias in (bias, None):
                expected = F.linear(
                    value.double(), weight.double(), None if some_bias is None else bias.double()
                )
                found = linear(value, weight, some_bias)
                assert found.dtype == torch.float32
                torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5, msg=name)
        half = linear(x, weight[16:], bias[16:])
        torch.testing.assert_close(half, F.linear(x, weight, bias)[..., 16:], rtol=1e-5, atol=1e-5)


def test_gradients_flow_as_through_an_ordinary_linear_layer(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, _ = tensors
    torch.manual_seed(0)
    ours = Linear(48, 32)
    torch.manual_seed(0)
    reference = nn.Linear(48, 32)
    for layer in (ours, reference):
        layer(x).square().sum().backward()
    assert isinstance(ours, nn.Linear)
    assert torch.equal(ours.weight, reference.weight)
    assert ours.weight.grad is not None
    assert reference.weight.grad is not None
    assert torch.equal(ours.weight.grad, reference.weight.grad)


def test_a_pytorch_without_the_operator_maps_all_the_same(
    tensors: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = tensors
    monkeypatch.setattr(module, "HAS_ONEDNN", False)
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" not in operators(x, weight)
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
