"""What a fine-tuning starts from is its own: no other folder's pictures, and no other model's start."""

import shutil
from pathlib import Path

import pytest

import diptych
from diptych.config import build
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Architecture
from diptych.models.building import build_model
from diptych.runs.finetune_start import prepare
from diptych.training.saving.layout import RECIPE
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import read_manifest
from tests.training.label_pictures import write_pictures

_ARCHITECTURE = {
    "embed_dim": 8,
    "image": {"resolution": 32, "patch": 16, "width": 64, "layers": 1},
    "text": {"width": 8, "context_length": 8},
}


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two models of one architecture."""
    names = []
    for name in ("first", "other"):
        model = build_model(build(Architecture, _ARCHITECTURE, "test"))
        diptych.save(model, diptych.data.images.transforms.Preprocess(32), tmp_path / name)
        names.append(str(tmp_path / name))
    return names


def _recipe(pictures: Path, init: str) -> Recipe:
    values = {
        "model": {"init": init},
        "data": {"train": str(pictures), "workers": 0},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"steps": 1, "batch_size": 4},
        "finetune": {"method": "head"},
    }
    return build(Recipe, values, "test")


def test_pictures_in_a_folder_named_start_are_not_deleted(tmp_path: Path, models: list[str]) -> None:
    pictures = write_pictures(tmp_path / "p")
    shutil.copytree(pictures / "red", pictures / "start")
    before = sorted(pictures.rglob("*"))
    with pytest.raises(SettingsError, match="a folder with other files; name a new folder"):
        prepare(_recipe(pictures, models[0]), pictures, lambda _: None)
    assert sorted(pictures.rglob("*")) == before
    shutil.copytree(pictures / "red", tmp_path / "run" / "start")
    with pytest.raises(CheckpointError, match="start"):
        prepare(_recipe(pictures, models[0]), tmp_path / "run", lambda _: None)
    assert any((tmp_path / "run" / "start").iterdir())


def test_the_start_of_a_run_that_did_not_begin_is_made_anew(tmp_path: Path, models: list[str]) -> None:
    pictures, run = write_pictures(tmp_path / "p"), tmp_path / "run"
    for model in models:
        prepare(_recipe(pictures, model), run, lambda _: None)
        assert read_manifest(run / "start").history[-1]["from"] == model


def test_a_run_does_not_go_on_from_another_model(tmp_path: Path, models: list[str]) -> None:
    pictures, run = write_pictures(tmp_path / "p"), tmp_path / "run"
    prepare(_recipe(pictures, models[0]), run, lambda _: None)
    (run / RECIPE).write_text("{}")
    assert prepare(_recipe(pictures, models[0]), run, lambda _: None).model.init == str(run / "start")
    with pytest.raises(
        SettingsError, match=r"was started from .*first, not from .*other; resume with --model"
    ):
        prepare(_recipe(pictures, models[1]), run, lambda _: None)
