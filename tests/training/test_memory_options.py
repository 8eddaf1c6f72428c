"""The options that save memory, together with one another and on shards of the weights."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from diptych.models import architectures
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.models.layers.blocks import set_recompute
from diptych.models.layers.patch_dropout import kept_patches
from diptych.models.modified_resnet import Bottleneck, ModifiedResNet
from diptych.models.vision_transformer import VisionTransformer
from diptych.training.optim.ema import Ema
from diptych.training.optim.mixed_precision import LossScale
from diptych.training.optim.optimizer import build_optimizer
from diptych.training.optim.optimizer_settings import AdamWSettings
from diptych.training.towers import Side

VIT = architectures.VisionTransformer(resolution=16, patch=4, width=64, layers=2)
RESNET = architectures.ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=8)
TEXT = architectures.BagOfWords(width=16, context_length=8, vocab_size=30)


def small_clip(image: architectures.VisionTransformer | architectures.ModifiedResNet = VIT) -> ImageModel:
    torch.manual_seed(0)
    return build_model(architectures.Architecture(embed_dim=16, image=image, text=TEXT)).double()


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A process group of one, in which FSDP2 turns parameters into shards as in any other."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def few_steps(model: ImageModel, moments: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and their average after three steps, by name."""
    settings = AdamWSettings(learning_rate=1e-2, moments=moments, layer_decay=0.7)  # type: ignore[arg-type]
    optimizer, ema = build_optimizer(model, settings, 4), Ema(model, 0.9)
    torch.manual_seed(2)
    for step in range(1, 4):
        optimizer.zero_grad()
        scale = LossScale(2.0**8, None)
        pixels, tokens = torch.randn(3, 3, 16, 16), torch.randint(0, 30, (3, 8))
        logits, _ = model(pixels, tokens)
        scale.scaled(logits.square().sum()).backward()
        scale.unscale(model.parameters())
        optimizer.step()
        ema.update(model, step)
    with ema.swapped(model):
        averaged = {name: whole(value).detach().clone() for name, value in model.named_parameters()}
    return {name: whole(value).detach().clone() for name, value in model.named_parameters()}, averaged


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_shards_of_the_weights_are_updated_and_averaged_as_whole_ones(moments: str) -> None:
    expected = few_steps(small_clip().float(), moments)
    model = small_clip().float()
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    # The logit scale and the text tower stay whole: shards and plain tensors mix, as in the engine.
    assert isinstance(model.visual, VisionTransformer)
    for block in model.visual.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model.visual, mesh=mesh)
    assert isinstance(model.visual.proj, DTensor)
    found = few_steps(model, moments)
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            # The same arithmetic; PyTorch's gradients of the tower arrive as copies.
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7, msg=name)


def cached_gradients(
    model: ImageModel, pixels: Tensor, kept: Tensor | None, rows: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features, and the gradient of a loss that couples all of them, with chunks of so many rows."""
    model.train().zero_grad()

    def encode(chosen: Tensor) -> Tensor:
        inputs = [pixels[chosen]] if kept is None else [pixels[chosen], kept[chosen]]
        features: Tensor = model.visual(*inputs)
        return features

    parts = list(torch.arange(len(pixels)).split(rows))
    side = Side(model.visual, encode, parts, 0, lambda on: contextlib.nullcontext())
    features = side.features()
    (features @ features.T).softmax(dim=1).diagonal().log().sum().backward()
    assert features.grad is not None
    side.backward(features.grad)
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return features.detach(), found


@pytest.mark.parametrize("recompute", [False, True])
def test_both_passes_over_a_batch_see_the_same_patches(recompute: bool) -> None:
    model, pixels = small_clip(), torch.randn(6, 3, 16, 16, dtype=torch.float64)
    kept = kept_patches(torch.arange(100, 106), 16, 0.5)
    features, expected = cached_gradients(model, pixels, kept, 6)
    set_recompute(model, recompute)
    for rows in (1, 4):
        chunked, found = cached_gradients(model, pixels, kept, rows)
        torch.testing.assert_close(chunked, features, rtol=1e-12, atol=1e-12)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12, msg=name)


def test_patches_drawn_anew_for_the_second_pass_give_the_gradient_of_nothing() -> None:
    """The broken twin: what a generator that is not restored between the passes does."""
    model, pixels = small_clip(), torch.randn(6, 3, 16, 16, dtype=torch.float64)
    _, expected = cached_gradients(model, pixels, kept_patches(torch.arange(6), 16, 0.5), 3)
    model.train().zero_grad()
    draws = iter(range(1_000))

    def encode(chosen: Tensor) -> Tensor:
        features: Tensor = model.visual(pixels[chosen], kept_patches(chosen + 6 * next(draws), 16, 0.5))
        return features

    side = Side(model.visual, encode, list(torch.arange(6).split(3)), 0, lambda on: contextlib.nullcontext())
    features = side.features()
    (features @ features.T).softmax(dim=1).diagonal().log().sum().backward()
    assert features.grad is not None
    side.backward(features.grad)
    found = model.visual.conv1.weight.grad
    assert found is not None
    reference = expected["visual.conv1.weight"]
    assert (found - reference).norm() > 0.1 * reference.norm()


def test_recomputed_chunks_of_a_resnet_move_its_statistics_once() -> None:
    pixels = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    gradients, buffers = [], []
    for recompute in (False, True):
        model = small_clip(RESNET)
        assert isinstance(model.visual, ModifiedResNet)
        first = model.visual.layer1[0]
        assert isinstance(first, Bottleneck)
        nn.init.ones_(first.bn3.weight)  # or the block is its shortcut alone
        set_recompute(model, recompute)
        gradients.append(cached_gradients(model, pixels, None, 3)[1])
        buffers.append(dict(model.named_buffers()))
    assert int(buffers[0]["visual.bn1.num_batches_tracked"]) == 2  # chunks
    for found, expected in ((gradients[1], gradients[0]), (buffers[1], buffers[0])):
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
