"""The weights before training have the spreads that the paper's code gives them."""

import math

import pytest
import torch
from torch import Tensor

from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.clip import CLIP
from tests.models.small_models import resnet_of, text_transformer_of, vision_transformer_of

WIDTH, LAYERS = 256, 4


def spread_is(value: Tensor, expected: float) -> bool:
    """Whether the standard deviation of `value` is `expected`, within five standard errors of a normal sample."""
    return abs(value.std().item() / expected - 1) < 5 / math.sqrt(2 * value.numel())


def clip(architecture: Architecture) -> CLIP:
    torch.manual_seed(0)
    model = build_model(architecture)
    assert isinstance(model, CLIP)
    return model


@pytest.fixture(scope="module")
def vit() -> CLIP:
    return clip(
        Architecture(
            embed_dim=128,
            image=VisionTransformer(resolution=64, patch=8, width=WIDTH, layers=2),
            text=TextTransformer(width=WIDTH, layers=LAYERS, vocab_size=500, embedding_width=64),
        )
    )


@pytest.fixture(scope="module")
def resnet() -> CLIP:
    return clip(
        Architecture(
            embed_dim=128,
            image=ModifiedResNet(resolution=64, layers=(1, 2, 1, 1), width=8),
            text=BagOfWords(width=WIDTH, vocab_size=500),
        )
    )


def test_the_text_tower_starts_as_the_paper_says(vit: CLIP) -> None:
    text = text_transformer_of(vit)
    assert text.positional_embedding is not None
    assert text.embedding_projection is not None
    assert spread_is(text.token_embedding.weight, 0.02)
    assert spread_is(text.positional_embedding, 0.01)
    assert spread_is(text.embedding_projection.weight, 64**-0.5)
    assert isinstance(text.text_projection, torch.nn.Parameter)
    assert spread_is(text.text_projection, WIDTH**-0.5)
    for block in text.blocks:
        assert spread_is(block.attn.in_proj_weight, WIDTH**-0.5)
        assert spread_is(block.attn.out_proj.weight, WIDTH**-0.5 * (2 * LAYERS) ** -0.5)
        assert spread_is(block.mlp.c_fc.weight, (2 * WIDTH) ** -0.5)
        assert spread_is(block.mlp.c_proj.weight, WIDTH**-0.5 * (2 * LAYERS) ** -0.5)
        assert not block.attn.in_proj_bias.any()
        assert not block.attn.out_proj.bias.any()


def test_the_vision_transformer_starts_as_the_original_does(vit: CLIP) -> None:
    visual = vision_transformer_of(vit)
    for value in (visual.class_embedding, visual.positional_embedding, visual.proj):
        assert spread_is(value, WIDTH**-0.5)
    for block in visual.blocks:  # PyTorch's own, as in the original
        assert spread_is(block.attn.in_proj_weight, math.sqrt(2 / (WIDTH + 3 * WIDTH)))  # Glorot's
        assert spread_is(block.attn.out_proj.weight, (3 * WIDTH) ** -0.5)
        assert spread_is(block.mlp.c_fc.weight, (3 * WIDTH) ** -0.5)
        assert spread_is(block.mlp.c_proj.weight, (3 * 4 * WIDTH) ** -0.5)
        assert not block.attn.in_proj_bias.any()
        assert not block.attn.out_proj.bias.any()


def test_each_residual_block_starts_as_its_shortcut(resnet: CLIP) -> None:
    for name, value in resnet.visual.named_parameters():
        if name.endswith("bn3.weight") and name.startswith("layer"):
            assert not value.any(), name
        elif "bn" in name:
            assert torch.equal(value, torch.full_like(value, name.endswith("weight"))), name
    block = resnet_of(resnet).blocks[0]
    assert block.downsample is not None
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x), block.downsample(x).relu())


def test_the_attention_pool_and_the_bag_of_words_start_as_the_paper_says(resnet: CLIP) -> None:
    pool = resnet_of(resnet).attnpool
    for projection in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        assert spread_is(projection.weight, 256**-0.5)
    assert spread_is(pool.positional_embedding, 256**-0.5)
    assert spread_is(resnet.text.token_embedding.weight, 0.02)
    assert isinstance(resnet.text.text_projection, torch.nn.Parameter)
    assert spread_is(resnet.text.text_projection, WIDTH**-0.5)


def test_the_temperature_starts_at_0_07_and_is_kept_from_going_below_0_01(vit: CLIP) -> None:
    assert vit.logit_scale.shape == ()
    assert vit.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    vit.clamp_logit_scale()
    assert vit.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        vit.logit_scale.fill_(7.0)
    vit.clamp_logit_scale()
    assert vit.logit_scale.exp().item() == pytest.approx(100)
    assert vit.logit_scale.requires_grad


def test_one_seed_gives_one_model() -> None:
    architecture = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=16, patch=8, width=64, layers=1),
        text=TextTransformer(width=64, layers=1, vocab_size=50),
    )
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(build_model(architecture).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["visual.proj"], models[2]["visual.proj"])
