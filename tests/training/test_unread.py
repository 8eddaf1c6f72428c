"""A setting that its run does not read is refused, and those that would read it are named."""

import dataclasses
import typing
from pathlib import Path

import pytest

from diptych.cli.sweep_options import parse_grid
from diptych.config import build
from diptych.errors import SettingsError
from diptych.runs.recipe_text import recipe_text
from diptych.runs.sweep_plan import Sweep
from diptych.training import settings as schema
from diptych.training.approaches import TASKS
from diptych.training.recipes import load_recipe
from diptych.training.unread import APPROACHES, METHODS, OPTIMIZERS, refuse_unread


@pytest.mark.parametrize(
    ("recipe", "assignment", "message"),
    [
        ("sample", "objective.margin=0.3", r"objective\.margin is not read by the approach 'clip'.*to shre"),
        ("sample", "objective.margin=0.1", r"objective\.margin is not read"),  # also where it is the default
        ("sample", "objective.temperature=0.5", r"to simclr, convirt, label-distillation"),
        ("sample", "objective.teacher=ViT-B/32", r"to clip-distillation, label-distillation, shre"),
        ("convirt", "objective.language_weight=1", r"by the approach 'convirt'.*to clip-language"),
        ("simclr", "objective.label_smoothing=0.1", r"by the approach 'simclr'.*to labels, classifier"),
        (
            "sample",
            "optimizer.momentum=0.8",
            r"optimizer\.momentum is not read by the optimizer 'adamw'.*to lars",
        ),
        ("sample", "optimizer.trust=0.1", r"to lars"),
        ("simclr", "optimizer.betas=[0.9, 0.99]", r"by the optimizer 'lars'.*to adamw"),
        ("labels", "data.text={ caption = 0.5 }", r"data\.text is not read by the approach 'labels'"),
    ],
)
def test_a_setting_of_another_approach_or_optimizer_is_refused(
    recipe: str, assignment: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_recipe(recipe, (assignment,))


def test_who_chooses_another_approach_leaves_the_settings_of_the_files_own_one_behind() -> None:
    recipe = load_recipe("clip-distillation", ("objective.name=clip",))
    assert recipe.objective == schema.ObjectiveSettings(positives=recipe.objective.positives)
    assert load_recipe("simclr", ("optimizer.name=adamw",)).optimizer.name == "adamw"
    with pytest.raises(SettingsError, match=r"objective\.affinity_weight is not read by the approach 'clip'"):
        load_recipe("clip-distillation", ("objective.name=clip", "objective.affinity_weight=1"))


def test_a_setting_in_a_file_and_in_a_sweep_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(recipe_text(load_recipe("sample")).replace("[objective]", "[objective]\nmargin = 0.2"))
    with pytest.raises(SettingsError, match=r"mine\.toml \[objective\]: objective\.margin is not read"):
        load_recipe(str(file))
    sweep = Sweep(recipe="sample", grids=(parse_grid("objective.margin=0.1,0.2"),))
    with pytest.raises(SettingsError, match=r"objective\.margin is not read"):
        sweep.recipe_of(sweep.plan()[0])


def _finetune(method: str, **settings: object) -> schema.Recipe:
    values = {
        "model": {"init": "diptych-mini"},
        "data": {"train": "sample:train"},
        "training": {"steps": 1, "batch_size": 2},
        "finetune": {"method": method, **settings},
    }
    recipe = build(schema.Recipe, values, "test")
    refuse_unread(values, recipe, "test")
    return recipe


def test_a_setting_of_another_method_of_fine_tuning_is_refused() -> None:
    _finetune("lora", rank=4)
    _finetune("full", head="zero")
    with pytest.raises(SettingsError, match=r"finetune\.rank is not read by the method 'head'.*to lora"):
        _finetune("head", rank=4)
    with pytest.raises(SettingsError, match=r"finetune\.head is not read by the method 'flyp'"):
        _finetune("flyp", head="probe")


def test_a_shipped_recipe_can_be_written_out_and_read_again(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    for file in sorted(recipes.glob("*.toml")):
        recipe = load_recipe(str(file))
        (tmp_path / "whole.toml").write_text(recipe_text(recipe))
        assert load_recipe(str(tmp_path / "whole.toml")) == recipe, file.name


def test_the_tables_name_what_there_is() -> None:
    assert {name for readers in APPROACHES.values() for name in readers} <= set(TASKS)
    everywhere = {"name", "positives"}
    named = {field.name for field in dataclasses.fields(schema.ObjectiveSettings)}
    # A new setting of an objective has to say who reads it.
    assert named - everywhere == set(APPROACHES)
    for table, settings, key in (
        (OPTIMIZERS, schema.OptimizerSettings, "name"),
        (METHODS, schema.FinetuneSettings, "method"),
    ):
        hints = typing.get_type_hints(settings)
        assert set(table) <= set(hints)
        assert {name for readers in table.values() for name in readers} <= set(typing.get_args(hints[key]))
