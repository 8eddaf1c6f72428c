"""SHRe in the engine: a run with a teacher and sounds, what it leaves, and what it refuses."""

import dataclasses
from pathlib import Path

import pytest
import torch

import diptych
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.models.building import build_model
from diptych.training.approaches.shre import ShreSettings
from diptych.training.engine import train
from diptych.training.feeding import open_training_data
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.step import training_step
from diptych.training.towers import Chunking

IMAGE = "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}"
SMALL = ("training.batch_size=8", "training.samples=32", "schedule.warmup_steps=1", "data.workers=0")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(load_recipe("scenes-labels", (*SMALL, IMAGE, "data.train='scenes:classes-train?count=48'")), out)
    return out / "model"


def tiny(teacher: Path | None, *more: str) -> Recipe:
    asked = () if teacher is None else (f"objective.teacher={str(teacher)!r}",)
    return load_recipe(
        "shre",
        (
            *SMALL,
            IMAGE,
            *asked,
            "data.train='scenes:train?sound=1&count=64'",
            "model.architecture.text.width=8",
            "evaluation.tasks=[]",
            *more,
        ),
    )


def test_the_recipe_trains_with_a_teacher_and_every_modality_meets(teacher: Path, tmp_path: Path) -> None:
    assert train(tiny(teacher), tmp_path / "run").step == 4
    model, preprocess = diptych.load(str(tmp_path / "run" / "model"))
    source = open_source("scenes:test?sound=1&count=24")
    seen = evaluate_retrieval(model, preprocess, source, model_name="tiny", truncate=True)
    assert seen.scores.count == 24


def test_no_word_meets_a_sound_of_its_own_example(teacher: Path) -> None:
    """Words of odd examples and sounds of even ones get no gradient at all."""
    recipe = tiny(teacher)
    torch.manual_seed(0)
    model = build_model(recipe.model.resolve())
    task = recipe.make_task(model, Preprocess(32))
    batch = next(open_training_data(recipe, model, Preprocess(32), lambda _: None).batches(0))
    rows = torch.arange(8)
    left, right = task.image(batch, rows), task.text(batch, rows).detach().requires_grad_()
    task.loss(left, right, None)[0].backward()
    assert right.grad is not None
    even = batch.rows % 2 == 0
    words, sounds = right.grad[:, :128].any(dim=1), right.grad[:, 128:256].any(dim=1)
    assert words.tolist() == even.tolist()
    assert sounds.tolist() == (~even).tolist()


def test_with_a_teacher_too_chunks_give_the_gradient_of_the_whole_batch(teacher: Path) -> None:
    found = []
    for chunking in (Chunking(), Chunking(images=3, texts=2), Chunking(images=2, texts=4, keep=1)):
        # Batch norms would see the chunks: their batch is one. A ViT has none.
        recipe = tiny(
            teacher, "model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}"
        )
        torch.manual_seed(0)
        model = build_model(recipe.model.resolve()).double()
        task = recipe.make_task(model, Preprocess(32))
        batch = next(open_training_data(recipe, model, Preprocess(32), lambda _: None).batches(0))
        assert batch.sounds is not None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        training_step(task, optimizer, batch, 0.0, None, group_positives=False, chunking=chunking)
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    for name, value in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-12)
    assert found[0]["text.shared.2.weight"].any()


def test_what_does_not_fit_is_refused_with_the_remedy(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="classes = 48, not 10"):
        train(tiny(teacher, "model.architecture.text.classes=10"), tmp_path / "a")
    with pytest.raises(DataError, match="no sound"):
        train(tiny(teacher, "data.train='scenes:train?count=64'"), tmp_path / "b")
    with pytest.raises(SettingsError, match="the teacher"):
        train(tiny(Path("diptych-mini")), tmp_path / "c")


def test_words_and_images_alone_train_without_sounds_and_without_a_teacher(tmp_path: Path) -> None:
    recipe = tiny(None, "model.architecture.text.sound_bands=0", "data.train='scenes:train?count=64'")
    assert isinstance(recipe.objective, ShreSettings)
    alone = dataclasses.replace(recipe, objective=dataclasses.replace(recipe.objective, teacher=None))
    assert train(alone, tmp_path / "run").step == 4
