"""SimCLR in the engine: a run from the shipped recipe, what it leaves, and what it refuses."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diptych
from diptych.data.images.transforms import Preprocess
from diptych.data.images.two_views import TwoViews
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, ProjectionHead, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe

# Without the exponentials, whose last bit depends on the place in a vector; the rest of a view is equal in any chunk.
VIEWS = TwoViews(aspect=(1.0, 1.0), blur=0.0)
UNTRAINED = {"visual.proj", "logit_scale"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of() -> ImageModel:
    torch.manual_seed(3)
    model = build_model(
        Architecture(
            embed_dim=8,
            image=VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2),
            text=ProjectionHead(head_layers=3, head_dim=6),
        )
    ).double()
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.mul_(20)
    return model.train()


def recipe_of(*more: str) -> Recipe:
    recipe = load_recipe("simclr", ("objective.temperature=0.2", *more))
    return dataclasses.replace(recipe, augmentation=VIEWS)


def tiny(*more: str) -> Recipe:
    settings = ("training.batch_size=8", "training.samples=48", "schedule.warmup_steps=2", *more)
    return load_recipe("simclr", settings)


def test_the_shipped_recipe_trains_resumes_to_the_bit_and_its_features_load(tmp_path: Path) -> None:
    whole = train(tiny(), tmp_path / "whole")
    assert whole.loss > 0

    def stop(_: torch.nn.Module, __: object) -> dict[str, float]:
        raise KeyboardInterrupt

    once = ("checkpoint.every_steps=2", "evaluation.every_steps=3")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(*once), tmp_path / "cut", evaluate=stop)
    train(tiny(*once), tmp_path / "cut", resume=True)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)

    model, preprocess = diptych.load(str(tmp_path / "whole" / "model"))
    pixels = preprocess(Image.new("RGB", (40, 40), "red"))[None]
    assert model.image_features(pixels).shape == (1, 512)
    with pytest.raises(SettingsError, match="images alone"):
        model.encode_text(torch.zeros(1, 8, dtype=torch.long))


def test_pictures_without_captions_are_enough(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    where = f"data.train={str(tmp_path / 'pictures')!r}"
    assert train(tiny(where, "training.samples=16"), tmp_path / "run").step == 2


def test_other_augmentations_and_other_text_sides_are_refused_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match="two-views"):
        load_recipe("simclr", ("augmentation={name='none'}",)).make_task(model_of(), Preprocess(32))
    architecture = load_recipe("sample").model.resolve()
    with pytest.raises(SettingsError, match="head_layers"):
        recipe_of().make_task(build_model(architecture), Preprocess(64))
