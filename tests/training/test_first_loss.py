"""The loss that `doctor` expects at the start is the loss of the first step, for every approach."""

import dataclasses
from pathlib import Path

import pytest
import torch

from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ProjectionHead,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.training.approaches import APPROACHES
from diptych.training.step import training_step
from tests.training.approaches import APPROACHES as CASES
from tests.training.approaches import plain, prepare, rows_of
from tests.training.gradient_matrix import ROWS

KNOWN = [name for name in CASES if name not in ("clip-distillation", "shre-taught")]
# In a space of few dimensions first similarities are far apart, which costs more than guessing.
IMAGE = VisionTransformer(resolution=32, patch=16, width=256, layers=2)
TEXT = TextTransformer(width=256, layers=2, context_length=12)
HEAD = ProjectionHead(head_layers=2, head_dim=256)
WIDE = {
    **{name: Architecture(embed_dim=512, image=IMAGE, text=HEAD) for name in ("simclr", "simclr-resnet")},
    "bag-of-words": Architecture(embed_dim=512, image=IMAGE, text=BagOfWords(width=256, context_length=12)),
    "convirt": Architecture(embed_dim=512, image=IMAGE, text=TEXT, heads="nonlinear"),
    "clip-language": Architecture(embed_dim=512, image=IMAGE, text=TEXT),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("approaches"))


def _losses(name: str, folder: Path, objective: str | None = None) -> tuple[float, float | None]:
    """Return the loss of the first step, and the expected one."""
    approach = CASES[name]
    recipe = (approach.recipe if objective is None else plain(objective))(folder)
    recipe = dataclasses.replace(
        recipe, training=dataclasses.replace(recipe.training, batch_size=ROWS, precision="float32")
    )
    architecture = WIDE.get(name, approach.architecture)
    if objective == "siglip":
        architecture = dataclasses.replace(architecture, logit_bias=-10.0)
    torch.manual_seed(0)
    model = build_model(architecture).double().train()
    task = recipe.make_task(model, Preprocess(32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    result = training_step(task, optimizer, rows_of(approach, range(ROWS)), 0.0, None, group_positives=False)
    return result.loss, recipe.approach.guessing_loss(recipe.objective, ROWS, architecture)


@pytest.mark.parametrize("name", KNOWN)
def test_the_first_loss_is_as_expected(folder: Path, name: str) -> None:
    found, expected = _losses(name, folder)
    assert expected is not None
    assert found == pytest.approx(expected, rel=0.2)


def test_the_first_loss_of_siglip_is_as_expected(folder: Path) -> None:
    found, expected = _losses("bag-of-words", folder, "siglip")
    # The bias of -10 costs each pair 10; ln 12 would be 2.5.
    assert found == pytest.approx(expected, rel=0.2)


def test_where_a_teacher_decides_nothing_is_expected(folder: Path) -> None:
    for name in ("clip-distillation", "shre-taught"):
        assert _losses(name, folder)[1] is None


def test_every_approach_has_an_expectation_unless_a_teacher_or_the_start_decides() -> None:
    nothing = {
        name
        for name, approach in APPROACHES.items()
        if approach.chance_loss is None and approach.first_loss is None
    }
    assert nothing == {"clip-distillation", "classifier"}
