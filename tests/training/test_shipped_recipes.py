"""Every recipe that ships with the package can be read, names an approach that there is, and says what it is."""

from pathlib import Path

import pytest

import diptych
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.bag_of_words import BagOfWords
from diptych.training.approaches import APPROACHES
from diptych.training.engine import train
from diptych.training.recipes import load_recipe, path

FOLDER = path("sample").parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_can_be_read_and_its_parts_fit_together(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.objective.name in APPROACHES
    assert recipe.schedule.warmup_steps < recipe.training.total_steps
    assert canvas_for(recipe.augmentation, Preprocess(recipe.model.resolve().image.resolution))
    first = (FOLDER / f"{name}.toml").read_text("utf-8").splitlines()[0]
    assert first.startswith("# ")


def test_every_approach_has_a_recipe_that_is_about_it_or_changes_one_word_of_another() -> None:
    shipped = {load_recipe(name).objective.name for name in NAMES}
    # SigLIP is CLIP's recipe with another name of the objective; so is the language model beside it. Those of
    # fine-tuning are written by `diptych finetune`.
    assert APPROACHES.keys() - shipped <= {"siglip", "clip-language", "language", "classifier", "lit"}


def test_a_folder_of_a_recipes_name_does_not_stand_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "virtex").mkdir()  # such as that of a run
    assert load_recipe("virtex").objective.name == "captioning"


def test_an_approach_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'simcir' is not an approach; did you mean 'simclr'"):
        load_recipe("simclr", ("objective.name=simcir",))


def test_clips_objective_trains_a_bag_of_words_on_the_scenes(tmp_path: Path) -> None:
    settings = (
        "data.train='scenes:train?count=32&side=36'",
        "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}",
        "training.batch_size=8",
        "training.steps=2",
        "schedule.warmup_steps=1",
    )
    train(load_recipe("bag-of-words", settings), tmp_path / "run")
    model, _ = diptych.load(str(tmp_path / "run" / "model"), device="cpu")
    assert isinstance(model.text, BagOfWords)
