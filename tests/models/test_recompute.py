"""Recomputed blocks give the gradients of kept ones, in less memory."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.models.image_model import ImageModel
from diptych.models.layers.batch_statistics import frozen_running_statistics
from diptych.models.layers.blocks import set_recompute
from diptych.models.layers.patch_dropout import kept_patches
from tests.models.small_models import random_texts, resnet_of, small_model

RESNETS = ["resnet", "resnet-stem-stride-2"]
SIDES = {"vit": 32, "resnet": 64, "resnet-stem-stride-2": 64}


def inputs(image: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    side = SIDES[image]
    return torch.randn(4, 3, side, side).to(dtype), random_texts([7, 3, 12, 5])


def gradients(model: ImageModel, pixels: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Of the contrastive loss of a batch of four, in training mode."""
    model.train().zero_grad()
    logits, transposed = model(pixels, tokens)
    target = torch.arange(4)
    cross_entropy = nn.functional.cross_entropy
    (cross_entropy(logits, target) + cross_entropy(transposed, target)).backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def saved_bytes(model: ImageModel, pixels: Tensor, tokens: Tensor) -> int:
    """Of the storages that a forward pass keeps for the backward pass, parameters aside."""
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # or a freed storage's address would be used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(pixels, tokens)
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recomputed_gradients_are_equal_to_the_bit(
    image_tower: str, text_tower: str, dtype: torch.dtype
) -> None:
    model = small_model(image_tower, text_tower, dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for on in (False, True):
        model.load_state_dict(before)
        set_recompute(model, on)
        found.append(gradients(model, *inputs(image_tower, dtype)))
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        # The same kernels on the same numbers.
        assert torch.equal(found[1][name], expected), name


def test_recomputation_under_autocast_is_in_the_same_precision() -> None:
    model = small_model(dtype=torch.float32)
    found = []
    for on in (False, True):
        set_recompute(model, on)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = model(*inputs("vit", torch.float32))
        model.zero_grad()
        logits.float().square().sum().backward()  # outside, as an engine does it
        found.append({name: value.grad for name, value in model.named_parameters()})
    for name, expected in found[0].items():
        assert expected is not None
        assert torch.equal(found[1][name], expected), name  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_recomputation_and_patch_dropout_go_together(share: float) -> None:
    model = small_model()
    pixels, _ = inputs("vit", torch.float64)
    kept = kept_patches(torch.arange(4), 16, share)
    found = []
    for on in (False, True):
        set_recompute(model, on)
        found.append(
            torch.autograd.grad(model.visual(pixels, kept).square().sum(), model.visual.conv1.weight)
        )
    assert torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("image", SIDES)
def test_recomputation_keeps_less_than_half_of_the_memory(image: str) -> None:
    model = small_model(image, dtype=torch.float32)
    batch = inputs(image, torch.float32)
    plain = saved_bytes(model, *batch)
    set_recompute(model, True)
    # What is left of a block is its input; the stem, the attention pool and the logits are kept whole.
    assert saved_bytes(model, *batch) < plain / 2


@pytest.mark.parametrize("image", RESNETS)
def test_running_statistics_move_once_when_blocks_are_recomputed(image: str) -> None:
    model = small_model(image)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = []
    for on in (False, True):
        model.load_state_dict(before)
        set_recompute(model, on)
        gradients(model, *inputs(image, torch.float64))
        buffers.append({name: value.clone() for name, value in model.named_buffers()})
    for name, expected in buffers[0].items():
        assert torch.equal(buffers[1][name], expected), name
        assert not torch.equal(expected, before[name]), f"{name} did not move at all"


def test_plain_checkpointing_moves_the_statistics_twice() -> None:
    """The broken twin of the test above: what would happen without `frozen_running_statistics`."""
    block = resnet_of(small_model("resnet")).blocks[0].train()
    x = torch.randn(2, 8, 16, 16, dtype=torch.float64, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    counted = block.bn1.num_batches_tracked
    assert counted is not None
    assert counted == 2


def test_frozen_statistics_change_what_is_kept_and_not_what_is_computed() -> None:
    inner = nn.BatchNorm2d(3)
    norm = nn.Sequential(inner).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with frozen_running_statistics(norm):
        frozen = norm(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(frozen, norm(x))
    assert inner.num_batches_tracked is not None
    assert inner.num_batches_tracked == 1
    assert inner.running_mean is not None
    assert not torch.equal(inner.running_mean, before["0.running_mean"])


def test_frozen_statistics_thaw_after_an_error_and_inside_one_another() -> None:
    norm = nn.BatchNorm2d(3)
    with frozen_running_statistics(norm):
        with pytest.raises(ValueError, match="expected 4D"), frozen_running_statistics(norm):
            norm(torch.randn(2, 3))
        assert norm.momentum == 0
        norm(torch.randn(2, 3, 4, 4))
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("image", RESNETS)
@pytest.mark.parametrize("recompute", [False, True])
def test_channels_last_changes_only_how_numbers_lie(image: str, recompute: bool) -> None:
    pixels, tokens = inputs(image, torch.float64)
    expected = gradients(small_model(image), pixels, tokens)
    model = small_model(image)
    model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(model, recompute)
    found = gradients(model, pixels.contiguous(memory_format=torch.channels_last), tokens)
    assert model.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in expected.items():
        # Other kernels, which add in another order.
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
    model.eval()
    with torch.no_grad():
        last = model.encode_image(pixels.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, model.encode_image(pixels), rtol=1e-10, atol=1e-12)
