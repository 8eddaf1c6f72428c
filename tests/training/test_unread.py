"""A setting that its run does not read is refused, and those that would read it are named."""

import typing
from pathlib import Path

import pytest

from diptych.cli.sweep_options import parse_grid
from diptych.config import build
from diptych.errors import SettingsError
from diptych.runs.recipe_text import recipe_text
from diptych.runs.sweep_plan import Sweep
from diptych.training import settings as schema
from diptych.training.approaches import APPROACHES
from diptych.training.approaches.contrastive import ClipSettings
from diptych.training.methods import FinetuneSettings
from diptych.training.recipes import load_recipe
from diptych.training.unread import METHODS, refuse_unread


@pytest.mark.parametrize(
    ("recipe", "assignment", "message"),
    [
        ("sample", "objective.margin=0.3", r"objective\.margin is not read by the approach 'clip'.*to shre"),
        ("sample", "objective.margin=0.1", r"objective\.margin is not read"),  # also where it is the default
        ("sample", "objective.temperature=0.5", r"to simclr, label-distillation, convirt"),
        ("sample", "objective.teacher=ViT-B/32", r"to shre, label-distillation, clip-distillation"),
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
    assert recipe.objective == ClipSettings(positives=recipe.objective.positives)
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


_VALUES = {
    "model": {"init": "diptych-mini"},
    "data": {"train": "sample:train"},
    "training": {"steps": 1, "batch_size": 2},
}


def _finetune(method: str, **settings: object) -> schema.Recipe:
    values = {**_VALUES, "finetune": {"method": method, **settings}}
    refuse_unread(values, values, "test")
    return build(schema.Recipe, values, "test")


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


def test_the_table_of_methods_names_what_there_is() -> None:
    hints = typing.get_type_hints(FinetuneSettings)
    assert set(METHODS) <= set(hints)
    assert {name for readers in METHODS.values() for name in readers} <= set(typing.get_args(hints["method"]))


@pytest.mark.parametrize("name", APPROACHES)
def test_an_approach_has_the_name_of_its_settings_and_reads_no_others(name: str) -> None:
    values = {**_VALUES, "objective": {"name": name}}
    assert build(schema.Recipe, values, "test").objective == schema.OBJECTIVES[name]()  # type: ignore[call-arg]
    everywhere = {
        setting: field.default
        for table in schema.OBJECTIVES.values()
        for setting, field in table.__dataclass_fields__.items()
    }
    for setting in everywhere.keys() - schema.OBJECTIVES[name].__dataclass_fields__.keys():
        with pytest.raises(SettingsError, match=rf"test \[objective\]: unknown setting '{setting}'"):
            build(schema.Recipe, {**_VALUES, "objective": {"name": name, setting: 1.0}}, "test")


def test_an_unknown_setting_of_an_approach_is_refused_with_the_nearest_one() -> None:
    values = {**_VALUES, "objective": {"name": "shre", "magrin": 0.3}}
    with pytest.raises(SettingsError, match=r"unknown setting 'magrin'; did you mean 'margin'"):
        build(schema.Recipe, values, "test")
    for name, message in (("shrew", "did you mean 'shre'"), (["shre"], "is not an approach"), (3, "known: ")):
        with pytest.raises(SettingsError, match=message):
            build(schema.Recipe, {**_VALUES, "objective": {"name": name}}, "test")
    with pytest.raises(SettingsError, match=r"\[objective\]: expected a table"):
        build(schema.Recipe, {**_VALUES, "objective": "clip"}, "test")
