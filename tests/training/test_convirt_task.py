"""ConVIRT in the engine: its recipe, its heads, its fixed temperature."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import diptych
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.vision_transformer import VisionTransformer as ImageTower
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.weights.assembly import lay_out

VIT = VisionTransformer(resolution=32, patch=16, width=16, layers=1, heads=2)
TEXT = TextTransformer(width=16, layers=1, heads=2, context_length=12)
TINY = (
    "model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}",
    "training.batch_size=8",
    "training.steps=3",
    "schedule.warmup_steps=1",
)


def test_the_shipped_recipe_trains_and_what_it_saves_has_both_heads_and_its_temperature(
    tmp_path: Path,
) -> None:
    train(load_recipe("convirt", TINY), tmp_path / "run")
    model, _ = diptych.load(str(tmp_path / "run" / "model"), device="cpu")
    assert model.architecture.heads == "nonlinear"
    assert model.logit_scale.item() == pytest.approx(math.log(10), rel=1e-6)
    fresh = build_model(model.architecture)
    torch.manual_seed(0)
    assert model.image_head is not None
    assert model.text_head is not None
    assert fresh.image_head is not None
    assert model.image_head.linear.weight.shape == fresh.image_head.linear.weight.shape == (128, 128)


def test_the_head_is_a_second_linear_map_after_a_relu_and_each_side_has_its_own() -> None:
    torch.manual_seed(0)
    model = build_model(Architecture(embed_dim=8, image=VIT, text=TEXT, heads="nonlinear"))
    assert model.image_head is not None
    assert model.text_head is not None
    assert not torch.equal(model.image_head.linear.weight, model.text_head.linear.weight)
    pixels, tokens = torch.randn(3, 3, 32, 32), torch.randint(1, 40, (3, 12))
    assert isinstance(model.visual, ImageTower)
    middle = model.image_features(pixels) @ model.visual.proj
    by_hand = torch.stack([model.image_head.linear.weight @ row.clamp(min=0) for row in middle])
    torch.testing.assert_close(model.encode_image(pixels), by_hand)
    by_hand = F.relu(model.text(tokens)) @ model.text_head.linear.weight.T
    torch.testing.assert_close(model.encode_text(tokens), by_hand)
    # Without them nothing is added to the models that there were before.
    plain = lay_out(Architecture(embed_dim=8, image=VIT, text=TEXT))
    assert {*model.state_dict()} - {*plain.state_dict()} == {
        "image_head.linear.weight",
        "text_head.linear.weight",
    }


def test_the_temperature_is_not_learned_and_a_model_without_heads_is_refused() -> None:
    model = build_model(Architecture(embed_dim=8, image=VIT, text=TEXT, heads="nonlinear"))
    task = load_recipe("convirt", ("objective.temperature=0.2",)).make_task(model, Preprocess(32))
    assert not model.logit_scale.requires_grad
    assert model.logit_scale.exp().item() == pytest.approx(5.0)
    assert set(task.towers) == {"image", "text"}
    linear = build_model(Architecture(embed_dim=8, image=VIT, text=TEXT))
    with pytest.raises(SettingsError, match='heads = "nonlinear"'):
        load_recipe("convirt").make_task(linear, Preprocess(32))
