"""Compiled blocks: one graph for equal blocks, the numbers of eager ones, and a clear word where no compiler is."""

import copy
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers import blocks
from diptych.models.layers.blocks import compile_blocks, set_recompute
from tests.models.small_models import random_texts, small_model, vision_transformer_of

# PyTorch hides this warning of its own by a filter for loggers, which does not see that this suite raises it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Compilation is global: each test starts and leaves it as it was."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):
        yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def outputs_and_gradients(model: ImageModel, images: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model.train().zero_grad()
    texts = random_texts([7, 3, 12, 5, 4, 9][:images])
    logits, _ = model(torch.randn(images, 3, 32, 32, dtype=model.dtype), texts)
    logits.square().sum().backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {**found, "logits": logits.detach()}


def largest_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Over all tensors: the largest difference of a component, over the largest component."""
    assert found.keys() == expected.keys()
    return max(
        ((found[name] - value).abs().max() / value.abs().max()).item() for name, value in expected.items()
    )


def test_equal_blocks_share_one_graph_and_compute_the_same() -> None:
    model = small_model(text="bag-of-words")  # three blocks, all of them in the image tower
    expected = outputs_and_gradients(model)
    names = list(model.state_dict())
    compile_blocks(model, backend="eager")  # traced, and run by the usual kernels
    assert largest_error(outputs_and_gradients(model), expected) == 0
    assert graphs() == 2  # every token, and the last block at one token
    assert list(model.state_dict()) == names
    set_recompute(model, True)
    assert largest_error(outputs_and_gradients(model), expected) == 0
    assert graphs() == 2


@pytest.mark.nightly
def test_the_graphs_of_both_towers_become_dynamic_at_the_second_shape() -> None:
    model = small_model()
    compile_blocks(model, backend="eager")
    outputs_and_gradients(model)
    assert graphs() == 4
    outputs_and_gradients(model, images=6)
    traced = graphs()
    expected = outputs_and_gradients(small_model(), images=5)
    assert largest_error(outputs_and_gradients(model, images=5), expected) < 1e-12
    assert graphs() == traced


def test_a_copy_of_a_compiled_model_has_its_own_weights() -> None:
    model = small_model(text="bag-of-words")
    compile_blocks(model, backend="eager")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        torch.nn.init.normal_(vision_transformer_of(twin).blocks[-1].mlp.c_proj.bias)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert not torch.allclose(twin.encode_image(pixels), model.encode_image(pixels))


def test_a_missing_compiler_is_named_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = small_model()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"no compiler .*leave \[training\] compile off"):
        compile_blocks(model)
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(SettingsError, match="'/nowhere/c\\+\\+'"):
        compile_blocks(model)
    assert graphs() == 0


def test_missing_headers_and_a_missing_triton_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SettingsError, match=r"Python\.h is missing; .*python3-dev"):
        compile_blocks(small_model())
    monkeypatch.setattr(blocks, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="'triton' is not installed"):
        blocks._check_compiler({"cuda"})


# What inductor imports makes scripts of PyTorch's own, which it has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.nightly
def test_compiled_blocks_are_within_rounding_of_eager_ones() -> None:
    model = small_model(dtype=torch.float32)
    expected = outputs_and_gradients(model)
    compile_blocks(model)
    # Fused kernels add in another order: seen 1.4e-6 over three blocks in float32.
    assert largest_error(outputs_and_gradients(model), expected) < 1e-5
    assert graphs() == 4
