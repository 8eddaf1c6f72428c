"""Sweeps: what is planned, how they are killed and go on, what a failure does, and that the best is the best."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from diptych.cli.sweep_options import parse_grid, parse_range
from diptych.errors import SettingsError
from diptych.models.architectures import BagOfWords
from diptych.runs import sweep_run
from diptych.runs.sweep_folder import Trial, ranked, read_sweep
from diptych.runs.sweep_plan import Grid, Range, Sweep
from diptych.runs.sweep_run import engine_alone, run_sweep
from diptych.training.engine import train
from diptych.training.optim.optimizer_settings import AdamWSettings
from diptych.training.settings import Recipe
from tests.runs.small_sweep import write_recipe

RATES = Grid("optimizer.learning_rate", (1e-3, 1e-9))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return write_recipe(tmp_path, steps=12, more="[schedule]\nwarmup_steps = 1")


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def test_a_grid_is_every_combination_in_order() -> None:
    sweep = Sweep(recipe="r", grids=(Grid("a.b", (1, 2)), Grid("c.d", ("x", "y", "z"))))
    assert [tuple(settings.values()) for settings in sweep.plan()] == [
        (1, "x"),
        (1, "y"),
        (1, "z"),
        (2, "x"),
        (2, "y"),
        (2, "z"),
    ]


def test_draws_of_a_positive_range_are_log_uniform() -> None:
    plan = Sweep(recipe="r", ranges=(Range("a.b", 1e-4, 1e-1),), trials=2000).plan()
    logs = [math.log10(settings["a.b"]) for settings in plan]
    assert -4 <= min(logs) <= max(logs) <= -1
    # 2,000 draws: the standard error of the mean is 3 / sqrt(12) / sqrt(2000) = 0.019; 5 of them.
    assert abs(statistics.mean(logs) + 2.5) < 0.1
    # Each third of the logarithms has a third of the draws, within 5 standard errors (0.0105).
    assert abs(sum(value < -3 for value in logs) / 2000 - 1 / 3) < 0.053


def test_draws_of_a_range_with_zero_are_uniform_and_whole_ranges_give_whole_numbers() -> None:
    plan = Sweep(recipe="r", ranges=(Range("a.b", 0.0, 1.0), Range("a.c", 1, 3)), trials=900).plan()
    assert abs(statistics.mean(settings["a.b"] for settings in plan) - 0.5) < 0.05
    assert {settings["a.c"] for settings in plan} == {1, 2, 3}
    assert all(isinstance(settings["a.c"], int) for settings in plan)
    # Log-uniform over 0.5 .. 3.5: one has log(3) / log(7) of the draws, 0.565; 5 standard errors are 0.083.
    assert abs(sum(settings["a.c"] == 1 for settings in plan) / 900 - math.log(3) / math.log(7)) < 0.083


def test_more_trials_and_another_order_of_the_ranges_keep_the_draws() -> None:
    first, second = Range("a.b", 0.1, 1.0), Range("c.d", 1e-3, 1.0)
    few = Sweep(recipe="r", ranges=(first, second), trials=3).plan()
    many = Sweep(recipe="r", ranges=(second, first), trials=7).plan()
    assert few == many[:3]
    assert few != Sweep(recipe="r", ranges=(first, second), trials=3, seed=1).plan()
    assert len({settings["a.b"] for settings in many}) == 7


def test_with_both_each_trial_has_a_point_of_the_grid_and_a_draw() -> None:
    plan = Sweep(recipe="r", grids=(Grid("a.b", (1, 2)),), ranges=(Range("c.d", 0.1, 1.0),), trials=4).plan()
    assert [settings["a.b"] for settings in plan] == [1, 2, 1, 2]
    assert len({settings["c.d"] for settings in plan}) == 4


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1e-4,3e-4", (1e-4, 3e-4)),
        ("a.b=1,2", (1, 2)),
        ("a.b=clip, siglip", ("clip", "siglip")),
        ('a.b="pair","caption"', ("pair", "caption")),
        ("a.b=true,false", (True, False)),
        ("a.b=[0.9, 0.98],[0.9, 0.999]", ([0.9, 0.98], [0.9, 0.999])),
        ("a.b={width = 32},{width = 64}", ({"width": 32}, {"width": 64})),
    ],
)
def test_values_of_a_grid(text: str, values: tuple[Any, ...]) -> None:
    assert parse_grid(text) == Grid("a.b", values)


@pytest.mark.parametrize("text", ["a.b", "=1", "a.b=", "a.b=1,1"])
def test_grids_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingsError, match="--grid"):
        parse_grid(text)


@pytest.mark.parametrize(
    "text", ["a.b", "a.b=1", "a.b=1..", "a.b=x..y", "a.b=2..1", "a.b=0..inf", "a.b=1..2..3"]
)
def test_ranges_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingsError, match="--random"):
        parse_range(text)


def test_plans_that_make_no_sense_say_so() -> None:
    with pytest.raises(SettingsError, match="nothing to sweep"):
        Sweep(recipe="r").plan()
    with pytest.raises(SettingsError, match=r"'a\.b' is swept twice"):
        Sweep(recipe="r", grids=(Grid("a.b", (1,)),), ranges=(Range("a.b", 0.1, 1.0),), trials=1).plan()
    with pytest.raises(SettingsError, match="--trials 20"):
        Sweep(recipe="r", ranges=(Range("a.b", 0.1, 1.0),)).plan()
    with pytest.raises(SettingsError, match="the grid has 2 points"):
        Sweep(recipe="r", grids=(Grid("a.b", (1, 2)),), trials=3).plan()


def test_tables_and_lists_reach_the_recipe(recipe: str) -> None:
    sweep = Sweep(recipe=recipe, assignments=("training.seed=3",))
    settings = {"model.architecture.text": {"width": 64, "context_length": 8}, "optimizer.betas": [0.8, 0.9]}
    built = sweep.recipe_of(settings)
    text = built.model.resolve().text
    assert isinstance(text, BagOfWords)
    assert text.width == 64
    assert isinstance(built.optimizer, AdamWSettings)
    assert built.optimizer.betas == (0.8, 0.9)
    assert built.training.seed == 3


def test_the_setting_that_learns_is_ranked_first_and_its_figures_are_those_of_its_log(
    recipe: str, tmp_path: Path
) -> None:
    told: list[int] = []
    out = tmp_path / "sweep"
    sweep = Sweep(recipe=recipe, grids=(Grid("optimizer.learning_rate", (1e-9, 1e-2)),))
    best, worst = run_sweep(sweep, out, tell=lambda trial, _: told.append(trial.number))
    assert told == [0, 1]
    assert (best.number, worst.number) == (1, 0)
    last = json.loads((out / best.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert best.metrics["step"] == last["step"] == 12
    assert best.metrics["loss"] == last["loss"]
    assert {trial.number: trial.metrics["loss"] for trial in read_sweep(out)} == {
        0: worst.metrics["loss"],
        1: best.metrics["loss"],
    }
    assert (out / best.folder / "model" / "diptych.json").is_file()


def test_a_killed_sweep_goes_on_where_it_was(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(
        recipe=recipe, grids=(RATES,), assignments=("evaluation.every_steps=4", "checkpoint.every_steps=4")
    )
    whole = run_sweep(sweep, tmp_path / "whole")
    calls: list[tuple[str, bool]] = []

    def evaluate(*_: object) -> dict[str, float]:
        if len(calls) == 2:
            raise Killed
        return {}

    def noted(recipe: Recipe, run: Path, **options: Any) -> Any:
        calls.append((run.name, options["resume"]))
        return train(recipe, run, **options)

    def dies(recipe: Recipe, run: Path, resume: bool, *_: object) -> None:
        noted(recipe, run, resume=resume, evaluate=evaluate)

    monkeypatch.setattr(sweep_run, "train", noted)
    with pytest.raises(Killed):
        run_sweep(sweep, tmp_path / "cut", runner=dies)
    assert [trial.status for trial in read_sweep(tmp_path / "cut")] == ["done", "waiting"]
    again = run_sweep(sweep, tmp_path / "cut")
    assert calls == [("trial-0000", False), ("trial-0001", False), ("trial-0001", True)]
    assert [trial.metrics["loss"] for trial in again] == [trial.metrics["loss"] for trial in whole]
    # A sweep that is done says again what it came to, and runs nothing.
    assert run_sweep(sweep, tmp_path / "cut") == again
    assert len(calls) == 3


def test_a_trial_killed_before_its_first_file_was_whole_starts_again(recipe: str, tmp_path: Path) -> None:
    sweep = Sweep(recipe=recipe, grids=(Grid("training.steps", (1,)),))
    with pytest.raises(Killed):
        run_sweep(sweep, tmp_path / "sweep", runner=_killed)
    rest = tmp_path / "sweep" / "trial-0000"
    rest.mkdir()
    (rest / ".recipe.json.x.tmp").write_text("{")
    assert [trial.status for trial in run_sweep(sweep, tmp_path / "sweep")] == ["done"]


def _killed(*_: object) -> None:
    raise Killed


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on(recipe: str, tmp_path: Path) -> None:
    fails = [True]

    def may_fail(recipe: Recipe, *rest: Any) -> None:
        if recipe.training.seed == 1 and fails[0]:
            raise RuntimeError("out of\nmemory")
        engine_alone(recipe, *rest)

    sweep = Sweep(recipe=recipe, grids=(Grid("training.seed", (1, 2)),), assignments=("training.steps=1",))
    done, failed = run_sweep(sweep, tmp_path / "sweep", runner=may_fail)
    assert (done.number, done.status) == (1, "done")
    assert (failed.number, failed.status, failed.error) == (0, "failed", "RuntimeError: out of memory")
    fails[0] = False
    assert run_sweep(sweep, tmp_path / "sweep", runner=may_fail)[-1].status == "failed"
    again = run_sweep(sweep, tmp_path / "sweep", runner=may_fail, retry=True)
    assert [trial.status for trial in again] == ["done", "done"]
    assert all(trial.error is None for trial in again)


def test_settings_that_cannot_be_used_are_found_before_anything_runs(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with pytest.raises(SettingsError, match="did you mean 'learning_rate'"):
        run_sweep(Sweep(recipe=recipe, grids=(Grid("optimizer.lerning_rate", (1.0,)),)), out)
    with pytest.raises(SettingsError, match="--metric 'top1' will not be in the log"):
        run_sweep(Sweep(recipe=recipe, grids=(RATES,), metric="top1"), out)
    assert not out.exists()


def test_a_folder_with_another_sweep_or_with_other_files_is_refused(recipe: str, tmp_path: Path) -> None:
    short = ("training.steps=1",)
    run_sweep(Sweep(recipe=recipe, assignments=short, grids=(RATES,)), tmp_path / "sweep")
    with pytest.raises(SettingsError, match="another grid"):
        run_sweep(
            Sweep(recipe=recipe, assignments=short, grids=(Grid("training.seed", (1,)),)), tmp_path / "sweep"
        )
    with pytest.raises(SettingsError, match="another recipe"):
        run_sweep(Sweep(recipe=recipe, grids=(RATES,)), tmp_path / "sweep")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="other files"):
        run_sweep(Sweep(recipe=recipe, grids=(RATES,)), tmp_path / "other")
    (tmp_path / "sweep" / "sweep.json").write_text("[]")
    with pytest.raises(SettingsError, match="not the file of a sweep"):
        run_sweep(Sweep(recipe=recipe, assignments=short, grids=(RATES,)), tmp_path / "sweep")


def test_a_sweep_can_be_given_more_trials(recipe: str, tmp_path: Path) -> None:
    seeds = (Range("optimizer.weight_decay", 0.01, 0.5),)
    short = ("training.steps=1",)
    first = run_sweep(Sweep(recipe=recipe, assignments=short, ranges=seeds, trials=1), tmp_path / "sweep")
    more = run_sweep(Sweep(recipe=recipe, assignments=short, ranges=seeds, trials=2), tmp_path / "sweep")
    assert sorted(trial.number for trial in more) == [0, 1]
    assert first[0] in more


def test_only_the_weights_of_the_best_are_kept_where_that_is_asked_for(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    sweep = Sweep(recipe=recipe, grids=(Grid("optimizer.learning_rate", (1e-2, 1e-9)),))
    best, other = run_sweep(sweep, out, keep_best_only=True)
    assert (out / best.folder / "model").is_dir()
    assert sorted(path.name for path in (out / other.folder).iterdir() if path.name != "tensorboard") == [
        "metrics.jsonl",
        "recipe.json",
    ]


def test_ranking_follows_the_goal_and_puts_failures_last() -> None:
    trials = [
        Trial(0, {}, "failed", error="x"),
        Trial(1, {}, "done", {"top1": 0.2}),
        Trial(2, {}, "done", {"top1": 0.7}),
        Trial(3, {}, "done", {"top1": 0.2}),
    ]
    assert [trial.number for trial in ranked(trials, "top1", "maximise")] == [2, 1, 3, 0]
    assert [trial.number for trial in ranked(trials, "top1", "minimise")] == [1, 3, 2, 0]


def test_a_sweep_under_torchrun_is_refused(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="without torchrun"):
        run_sweep(Sweep(recipe=recipe, grids=(RATES,)), tmp_path / "sweep")
