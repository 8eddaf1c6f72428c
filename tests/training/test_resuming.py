"""A run goes on with the settings and the data that it was started with, or says what differs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.config import build
from diptych.errors import SettingsError
from diptych.pretrained import load
from diptych.training import feeding
from diptych.training.approaches.classifier import ClassifierSettings
from diptych.training.engine import train
from diptych.training.feeding import open_training_data, open_whole, split_of
from diptych.training.saving.layout import checkpoints
from diptych.training.saving.resuming import refuse_other_data
from diptych.training.settings import Recipe
from diptych.training.starting import starting_model
from diptych.training.unread import without_unread
from diptych.weights.checkpoint import load_checkpoint, read_manifest, save_checkpoint

IMAGES = 12
# The `recipe.json` of two runs that were written when one class had the settings of every approach and optimizer.
RESOLVED = Path(__file__).parent / "resolved_recipes"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"drawing {number}")
    return folder


@pytest.fixture
def table(images: Path) -> Path:
    path = images.parent / "pairs.csv"
    path.write_text(_rows(IMAGES))
    return path


def _rows(count: int, words: str = "drawing") -> str:
    return "image,caption\n" + "".join(f"images/{number}.png,{words} {number}\n" for number in range(count))


def _recipe(data: dict[str, object], rate: float = 1e-3) -> Recipe:
    values = {
        "model": {
            "architecture": {
                "embed_dim": 8,
                "image": {"resolution": 32, "patch": 16, "width": 64, "layers": 1},
                "text": {"width": 8, "context_length": 8},
            }
        },
        "data": {"workers": 0, **data},
        "optimizer": {"learning_rate": rate},
        "schedule": {"warmup_steps": 1},
        "training": {"steps": 2, "batch_size": 4},
        "checkpoint": {"every_steps": 1},
    }
    return build(Recipe, values, "test")


def _stopped(run: Path, data: dict[str, object]) -> Recipe:
    """A run that was stopped after the first of its two steps."""
    recipe = _recipe(data)
    train(recipe, run)
    shutil.rmtree(checkpoints(run)[-1])
    shutil.rmtree(run / "model")
    return recipe


def test_a_run_goes_on_with_the_data_it_was_started_with(table: Path, tmp_path: Path) -> None:
    recipe = _stopped(tmp_path / "run", {"train": str(table)})
    assert train(recipe, tmp_path / "run", resume=True).step == 2


def test_another_table_in_the_place_of_the_first_is_refused(table: Path, tmp_path: Path) -> None:
    recipe = _stopped(tmp_path / "run", {"train": str(table)})
    for text, now in ((_rows(IMAGES, "picture"), 12), (_rows(IMAGES - 3), 9)):
        table.write_text(text)
        with pytest.raises(
            SettingsError, match=rf"pairs\.csv has changed.*12 of 12 .* then, {now} of {now} now"
        ):
            train(recipe, tmp_path / "run", resume=True)
    table.write_text(_rows(IMAGES))
    assert train(recipe, tmp_path / "run", resume=True).step == 2


def test_another_image_in_a_folder_of_a_mixture_is_refused(images: Path, table: Path, tmp_path: Path) -> None:
    recipe = _stopped(tmp_path / "run", {"mixture": {str(images): 1.0, str(table): 2.0}})
    shutil.copy(images / "0.png", images / "new.png")
    (images / "new.txt").write_text("new")
    with pytest.raises(SettingsError, match=r"24 of 24 examples used then, 25 of 25 now"):
        train(recipe, tmp_path / "run", resume=True)


def test_a_run_that_is_done_needs_its_data_no_more(table: Path, tmp_path: Path) -> None:
    recipe = _recipe({"train": str(table)})
    train(recipe, tmp_path / "run")
    table.write_text(_rows(IMAGES - 1))
    assert train(recipe, tmp_path / "run", resume=True).step == 2


def test_a_run_of_an_older_version_says_that_its_data_were_not_checked(table: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = _recipe({"train": str(table)})
    model, preprocess = starting_model(recipe, said.append)
    loader = open_training_data(recipe, model, preprocess, said.append)
    refuse_other_data(tmp_path / "run", None, loader, recipe, said.append)
    assert "was not checked" in said[-1]


def test_a_run_of_an_older_version_that_held_out_other_rows_is_refused(table: Path, tmp_path: Path) -> None:
    """The keys by which rows are held out were their numbers."""
    recipe = _recipe({"train": str(table), "validation": 0.25})
    model, preprocess = starting_model(recipe, lambda _: None)
    loader = open_training_data(recipe, model, preprocess, lambda _: None)
    with pytest.raises(
        SettingsError, match=r"older Diptych, which held out other examples .* Start a new run"
    ):
        refuse_other_data(tmp_path / "run", None, loader, recipe, lambda _: None)


def test_a_run_of_an_older_version_on_folders_of_classes_goes_on(images: Path, tmp_path: Path) -> None:
    for number in range(IMAGES):
        (tmp_path / "classes" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(images / f"{number}.png", tmp_path / "classes" / "ab"[number % 2])
    recipe = replace(
        _recipe({"train": str(tmp_path / "classes"), "validation": 0.25}),
        objective=ClassifierSettings(),
    )
    said: list[str] = []
    model, preprocess = starting_model(_recipe({"train": str(images)}), said.append)
    loader = open_training_data(_recipe({"train": str(images)}), model, preprocess, said.append)
    refuse_other_data(tmp_path / "run", None, loader, recipe, said.append)
    assert "was not checked" in said[-1]
    shutil.copy(tmp_path / "classes" / "a" / "0.png", tmp_path / "classes" / "a" / "copy.png")
    shutil.copy(tmp_path / "classes" / "a" / "0.png", tmp_path / "classes" / "a" / "second.png")
    with pytest.raises(SettingsError, match="older Diptych"):
        refuse_other_data(tmp_path / "run", None, loader, recipe, said.append)


def test_a_run_that_is_done_is_not_measured_on_another_held_out_part(table: Path, tmp_path: Path) -> None:
    recipe = _recipe({"train": str(table), "validation": 0.25})
    train(recipe, tmp_path / "run")
    assert train(recipe, tmp_path / "run", resume=True).step == 2
    table.write_text(_rows(IMAGES - 1))
    with pytest.raises(SettingsError, match=r"has changed since .* or start a new run with --out$"):
        train(recipe, tmp_path / "run", resume=True)


def test_images_that_join_other_groups_change_what_is_held_out(
    images: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table's fingerprint does not cover its images, and as many may be held out as before."""
    recipe = _stopped(tmp_path / "run", {"train": str(table), "validation": 0.25})
    monkeypatch.setattr(feeding, "_splits", {})  # as in another process
    flags = split_of(recipe.data, open_whole(recipe.data)[0]).held_out
    held, kept = np.flatnonzero(flags)[0], np.flatnonzero(~flags)[-1]
    shutil.copy(images / f"{kept}.png", images / f"{held}.png")
    monkeypatch.setattr(feeding, "_splits", {})
    assert (split_of(recipe.data, open_whole(recipe.data)[0]).held_out != flags).any()
    with pytest.raises(SettingsError, match="has changed since"):
        train(recipe, tmp_path / "run", resume=True)


def test_another_column_of_labels_is_another_split(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{images / f'{number}.png'},{number % 2},{number // 2}\n" for number in range(8)]
    table.write_text("".join(["image,label,other\n", *rows]))
    found = []
    for column in ("label", "other"):
        data = _recipe({"train": str(table), "label_column": column, "validation": 0.25}).data
        source = open_whole(data)[0]
        held = np.flatnonzero(split_of(data, source).held_out)
        found.append({source[int(row)].label for row in held})
    assert found[0] == {"0", "1"}  # some of each class of its own column
    assert found[1] == {"0", "1", "2", "3"}


def test_the_setting_that_differs_is_named(table: Path, tmp_path: Path) -> None:
    _stopped(tmp_path / "run", {"train": str(table)})
    with pytest.raises(SettingsError, match=r"optimizer\.learning_rate was 0\.001, is now 0\.002\. Resume"):
        train(_recipe({"train": str(table)}, 2e-3), tmp_path / "run", resume=True)
    with pytest.raises(SettingsError, match=r"data\.caption_column was not set, is now 'caption'"):
        train(_recipe({"train": str(table), "caption_column": "caption"}), tmp_path / "run", resume=True)


def test_a_setting_that_came_later_does_not_stop_an_older_run(table: Path, tmp_path: Path) -> None:
    recipe = _stopped(tmp_path / "run", {"train": str(table)})
    asked = tmp_path / "run" / "recipe.json"
    values = json.loads(asked.read_text())
    del values["data"]["balance"], values["objective"]["positives"]
    asked.write_text(json.dumps(values))
    assert train(recipe, tmp_path / "run", resume=True).step == 2


@pytest.mark.parametrize("name", ["clip", "simclr-lars"])
def test_a_run_that_noted_the_settings_of_every_approach_goes_on_and_its_model_loads(
    name: str, tmp_path: Path
) -> None:
    noted = (RESOLVED / f"{name}.json").read_text("utf-8")
    values = json.loads(noted)
    assert {"margin", "temperature", "feature_weight"} <= values["objective"].keys()
    assert {"betas", "momentum"} <= values["optimizer"].keys()
    recipe, run = build(Recipe, without_unread(values, values), name), tmp_path / "run"
    train(recipe, run)
    shutil.rmtree(checkpoints(run)[-1])
    shutil.rmtree(run / "model")
    (run / "recipe.json").write_text(noted)
    assert train(recipe, run, resume=True).step == 2
    model, preprocess = load_checkpoint(run / "model")[:2]
    save_checkpoint(tmp_path / "noted", model, dict(preprocess), settings=values)
    assert read_manifest(tmp_path / "noted").settings == values
    load(str(tmp_path / "noted"), device="cpu")
    other = replace(recipe, objective=replace(recipe.objective, positives="image"))
    with pytest.raises(SettingsError, match=r"objective\.positives was 'caption', is now 'image'\. Resume"):
        train(other, run, resume=True)
