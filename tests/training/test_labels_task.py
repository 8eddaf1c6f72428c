"""Learning from labels in the engine: pre-training, fine-tuning from a projection head's middle, other resolutions."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import diptych
from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.architectures import (
    LABELLED,
    Architecture,
    LabelHead,
    ModifiedResNet,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.heads.label_head import LabelHead as Head
from diptych.models.image_model import ImageModel
from diptych.training.engine import train
from diptych.training.planning.forecast import made_up_batch
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.starting import with_classes
from diptych.training.step import training_step
from diptych.weights.assembly import lay_out
from tests.training.label_pictures import write_pictures

TINY_VIT = "model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}"
TINY_RUN = ("training.batch_size=6", "training.steps=2", "schedule.warmup_steps=1", "data.cache=true")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def recipe_of(name: str, pictures: Path, *more: str) -> Recipe:
    place = (f"data.train={str(pictures)!r}", "data.label_from=label")
    return load_recipe(name, (*place, *TINY_RUN, *more))


def small(classes: int = 5) -> ImageModel:
    torch.manual_seed(0)
    names = tuple(map(str, range(classes)))
    image = VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2)
    return build_model(Architecture(embed_dim=16, image=image, text=LabelHead(classes=names)))


def test_the_first_loss_is_the_logarithm_of_the_classes_and_its_gradient_stops_at_the_head() -> None:
    model = small()
    task = load_recipe("labels", ("augmentation={name='none'}",)).make_task(model, Preprocess(32))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    batch = made_up_batch(
        torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8),
        torch.arange(10)[:, None] % 5,
        torch.device("cpu"),
    )

    def step() -> float:
        return training_step(task, optimizer, batch, 0.1, None, group_positives=False).loss

    assert step() == pytest.approx(math.log(5), rel=1e-6)
    encoder = [value for name, value in model.visual.named_parameters() if value.requires_grad]
    assert all(not value.grad.any() for value in encoder if value.grad is not None)
    assert isinstance(model.text, Head)
    assert model.text.weight.grad is not None
    assert model.text.weight.grad.any()
    assert step() < math.log(5)
    assert all(value.grad is not None and value.grad.any() for value in encoder)


def test_the_shipped_recipe_finds_its_classes_trains_and_is_loaded_with_them(
    pictures: Path, tmp_path: Path
) -> None:
    train(recipe_of("labels", pictures, TINY_VIT), tmp_path / "run")
    model, preprocess = diptych.load(str(tmp_path / "run" / "model"), device="cpu")
    assert model.architecture.text == LabelHead(classes=("blue", "green", "red"))
    features = model.image_features(torch.zeros(1, 3, preprocess.resolution, preprocess.resolution))
    assert model.text(features).shape == (1, 3)
    with pytest.raises(SettingsError, match="image features"):
        model.encode_image(torch.zeros(1, 3, 32, 32))


def test_colours_are_learned_from_four_labels_a_class(pictures: Path, tmp_path: Path) -> None:
    more = (
        "training.steps=60",
        "data.labels_per_class=4",
        "augmentation={name='none'}",
        "optimizer.learning_rate=1e-2",
    )
    assert train(recipe_of("labels", pictures, TINY_VIT, *more), tmp_path / "run").loss < 0.5


def test_fine_tuning_starts_from_the_encoder_and_the_first_layer_of_simclrs_head(
    pictures: Path, tmp_path: Path
) -> None:
    head = "model.architecture.text={head_layers=3, head_dim=8}"
    train(recipe_of("simclr", pictures, TINY_VIT, head), tmp_path / "simclr")
    start = str(tmp_path / "simclr" / "model")
    still = (
        "optimizer.learning_rate=1e-12",
        "optimizer.weight_decay=0.0",
        "model.architecture.embed_dim=128",
    )
    settings = (TINY_VIT, f"model.init={start!r}", *still)
    train(recipe_of("simclr-finetune", pictures, *settings), tmp_path / "tuned")
    before, after = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("simclr", "tuned")
    )
    for name, value in after.items():
        if name.startswith(("visual.", "text.hidden.")) and "running" not in name:
            torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)
    assert "text.hidden.linears.0.weight" in after
    assert "text.hidden.linears.1.weight" not in after
    deeper = "model.architecture.text={classes=[], kept_layers=3}"
    with pytest.raises(SettingsError, match="kept_layers"):
        train(recipe_of("simclr-finetune", pictures, *settings, deeper), tmp_path / "deeper")


def test_fine_tuning_at_another_resolution_keeps_all_but_the_positions(
    pictures: Path, tmp_path: Path
) -> None:
    train(recipe_of("labels", pictures, TINY_VIT), tmp_path / "first")
    start = str(tmp_path / "first" / "model")
    larger = "model.architecture.image={resolution=64, patch=16, width=16, layers=1, heads=2}"
    more = (larger, f"model.init={start!r}", "optimizer.learning_rate=1e-12")
    train(recipe_of("labels", pictures, *more), tmp_path / "second")
    before, after = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second")
    )
    assert before["visual.positional_embedding"].shape == (5, 16)
    assert after["visual.positional_embedding"].shape == (17, 16)
    assert diptych.load(str(tmp_path / "second" / "model"), device="cpu")[1].resolution == 64
    torch.testing.assert_close(after["visual.conv1.weight"], before["visual.conv1.weight"], rtol=0, atol=1e-6)


def test_fine_tuning_on_other_classes_keeps_the_encoder_and_begins_a_new_head(
    pictures: Path, tmp_path: Path
) -> None:
    train(recipe_of("labels", pictures, TINY_VIT), tmp_path / "first")
    others = tmp_path / "others"
    shutil.copytree(pictures / "red", others / "apple")
    shutil.copytree(pictures / "blue", others / "sea")
    start = f"model.init={str(tmp_path / 'first' / 'model')!r}"
    train(recipe_of("labels", others, TINY_VIT, start, "optimizer.learning_rate=1e-12"), tmp_path / "second")
    before, after = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second")
    )
    torch.testing.assert_close(after["visual.conv1.weight"], before["visual.conv1.weight"], rtol=0, atol=1e-6)
    assert after["text.weight"].shape == (2, 16)
    assert after["text.weight"].abs().max() < 1e-9


def test_a_clip_is_fine_tuned_by_swapping_its_text_side_for_labels(pictures: Path, tmp_path: Path) -> None:
    architecture = diptych.load("diptych-mini", device="cpu")[0].architecture
    wanted = config.plain(dataclasses.replace(architecture, text=LabelHead(classes=())))
    table = ", ".join(f"{name}={toml(value)}" for name, value in wanted.items())
    settings = (f"model={{init='diptych-mini', architecture={{{table}}}}}", "optimizer.learning_rate=1e-12")
    train(recipe_of("labels", pictures, *settings), tmp_path / "run")
    model, _ = diptych.load(str(tmp_path / "run" / "model"), device="cpu")
    clip, _ = diptych.load("diptych-mini", device="cpu")
    found, expected = model.visual.state_dict(), clip.visual.state_dict()
    for name, _ in model.visual.named_parameters():
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={toml(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


def test_a_run_with_classes_from_its_data_goes_on_as_if_it_had_not_stopped(
    pictures: Path, tmp_path: Path
) -> None:
    def stop(_: torch.nn.Module, __: object) -> dict[str, float]:
        raise KeyboardInterrupt

    settings = (TINY_VIT, "training.steps=4", "checkpoint.every_steps=1", "evaluation.every_steps=2")
    train(recipe_of("labels", pictures, *settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe_of("labels", pictures, *settings), tmp_path / "cut", evaluate=stop)
    train(recipe_of("labels", pictures, *settings), tmp_path / "cut", resume=True)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patches_are_cut_out_and_multiplied_by_one_matrix() -> None:
    """z_0 of Dosovitskiy et al., equation 1: x_p E, with E of P * P * 3 rows (768 for patches of 16 pixels)."""
    tower = small().visual
    pixels = torch.randn(2, 3, 32, 32)
    cut = torch.nn.functional.unfold(pixels, 16, stride=16)  # (batch, 3 * 16 * 16, patches)
    assert cut.shape == (2, 768, 4)
    matrix = tower.conv1.weight.flatten(1)
    found = tower.conv1(pixels).flatten(2)
    torch.testing.assert_close(found, matrix @ cut, rtol=0, atol=1e-5)


def test_a_start_of_the_same_kind_but_another_size_is_refused(pictures: Path, tmp_path: Path) -> None:
    train(recipe_of("simclr", pictures, TINY_VIT), tmp_path / "simclr")
    start = f"model.init={str(tmp_path / 'simclr' / 'model')!r}"
    with pytest.raises(SettingsError, match="another architecture"):
        train(
            recipe_of("simclr", pictures, TINY_VIT, start, "model.architecture.text={head_layers=3}"),
            tmp_path / "b",
        )


def test_classes_that_a_recipe_names_are_left_as_they_are(pictures: Path) -> None:
    named = recipe_of("labels", pictures, "model.architecture.text={classes=['red', 'blue', 'green']}")
    assert with_classes(named) is named
    found = with_classes(recipe_of("labels", pictures)).model.resolve().text
    assert found == LabelHead(classes=("blue", "green", "red"))


# torchvision's counts with a head of 1,000 classes, as printed in its documentation; they are those of the paper, 86,
# 307 (its head has 21k classes) and 632 million.
TORCHVISION = {"ViT-Base/16": 86_567_656, "ViT-Large/16": 304_326_632, "ViT-Huge/14": 632_045_800}


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads"),
    [("ViT-Base/16", 12, 768, 12), ("ViT-Large/16", 24, 1024, 16), ("ViT-Huge/14", 32, 1280, 16)],
)
def test_the_three_sizes_of_vit_have_their_parameters(name: str, layers: int, width: int, heads: int) -> None:
    size = LABELLED[name].image
    assert not isinstance(size, ModifiedResNet)
    assert (size.layers, size.width, size.heads or size.width // 64) == (layers, width, heads)
    classes = tuple(map(str, range(1000)))
    model = lay_out(Architecture(embed_dim=8, image=size, text=LabelHead(classes=classes), activation="gelu"))
    count = sum(value.numel() for value in model.parameters())
    # Ours has CLIP's tower: a norm before the first block, no bias of the patches; and what only CLIP needs.
    only_clip = 8 * width + 1
    assert count - only_clip - 2 * width + width == TORCHVISION[name]


def test_the_bias_of_the_patches_and_the_first_norm_are_the_only_differences_from_torchvision(
    open_clip: object,
) -> None:
    from torchvision.models.vision_transformer import VisionTransformer as Reference  # noqa: PLC0415

    reference = Reference(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=5
    )
    only_clip = ("visual.proj", "logit_scale")
    ours = sum(value.numel() for name, value in small().named_parameters() if name not in only_clip)
    assert ours - 2 * 16 + 16 == sum(value.numel() for value in reference.parameters())
