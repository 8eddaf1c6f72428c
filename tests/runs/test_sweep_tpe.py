"""`--sampler tpe`: proposals learn from earlier trials, and a killed sweep ends as an uninterrupted one."""

import builtins
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import MissingExtraError, SettingsError
from diptych.runs import sweep_tpe
from diptych.runs.sweep_folder import Trial, read_sweep
from diptych.runs.sweep_plan import Grid, Range, Sweep
from diptych.runs.sweep_run import engine_alone, run_sweep
from diptych.runs.sweep_tpe import propose
from diptych.training.settings import Recipe
from tests.runs.small_sweep import write_recipe

RATE = Range("optimizer.learning_rate", 1e-5, 1e-1)
WARM_UP = Range("schedule.warmup_steps", 1, 3)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return write_recipe(tmp_path, steps=4)


def loss_of(settings: dict[str, Any]) -> float:
    """A bowl in the logarithm of the rate and in the warm-up, with a step of one between two words."""
    away = math.log10(settings[RATE.key]) + 2
    return float(away**2 + (settings["a.steps"] - 5) ** 2 / 20 + (settings["a.word"] == "bad"))


def made_up(sweep: Sweep, count: int) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(count):
        settings = propose(sweep, trials)
        trials.append(Trial(number, settings, "done", {"loss": loss_of(settings)}))
    return trials


def bowl(seed: int, **more: Any) -> Sweep:
    ranges = (RATE, Range("a.steps", 1, 16))
    return Sweep(recipe="r", grids=(Grid("a.word", ("bad", "good")),), ranges=ranges, seed=seed, **more)


def test_proposals_are_better_than_random_draws_in_as_many_trials() -> None:
    proposed = [
        trial.metrics["loss"] for seed in range(5) for trial in made_up(bowl(seed, sampler="tpe"), 40)[20:]
    ]
    drawn = [loss_of(settings) for seed in range(5) for settings in bowl(seed, trials=40).plan()[20:]]
    assert statistics.mean(proposed) < 0.6 * statistics.mean(drawn)


def test_the_goal_turns_the_proposals_round() -> None:
    best = [trial.metrics["loss"] for trial in made_up(bowl(0, sampler="tpe", goal="maximise"), 40)[20:]]
    assert statistics.mean(best) > statistics.mean(loss_of(one) for one in bowl(0, trials=40).plan())


def test_proposals_depend_on_seed_and_trials_alone_and_stay_in_their_ranges() -> None:
    trials = made_up(bowl(3, sampler="tpe"), 15)
    assert made_up(bowl(3, sampler="tpe"), 15) == trials
    assert made_up(bowl(4, sampler="tpe"), 15) != trials
    for trial in trials:
        assert 1e-5 <= trial.settings[RATE.key] <= 1e-1
        assert trial.settings["a.steps"] in range(1, 17)
        assert isinstance(trial.settings["a.steps"], int)
        assert trial.settings["a.word"] in ("bad", "good")


def test_a_range_whose_ends_have_many_digits_is_kept_to() -> None:
    narrow = Sweep(recipe="r", ranges=(Range("a.b", 0.123451, 0.123452),), sampler="tpe")
    assert 0.123451 <= propose(narrow, ())["a.b"] <= 0.123452


def test_values_of_a_grid_may_be_lists_and_failed_trials_say_nothing() -> None:
    betas = Grid("optimizer.betas", ([0.9, 0.98], [0.8, 0.9]))
    sweep = Sweep(recipe="r", grids=(betas,), ranges=(RATE,), sampler="tpe")
    trials = [Trial(0, {"optimizer.betas": [0.8, 0.9], RATE.key: 0.01}, "failed", error="x")]
    assert propose(sweep, trials)["optimizer.betas"] in betas.values


def test_a_killed_sweep_ends_as_one_that_was_not(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL: nothing catches it."""

    monkeypatch.setattr(sweep_tpe, "RANDOM_TRIALS", 2)
    sweep = Sweep(recipe=recipe, ranges=(RATE, WARM_UP), trials=6, sampler="tpe")
    whole = run_sweep(sweep, tmp_path / "whole")
    runs: list[str] = []

    def dies(recipe: Recipe, folder: Path, *rest: Any) -> None:
        runs.append(folder.name)
        if len(runs) == 5:
            raise Killed
        engine_alone(recipe, folder, *rest)

    with pytest.raises(Killed):
        run_sweep(sweep, tmp_path / "cut", runner=dies)
    assert [trial.status for trial in read_sweep(tmp_path / "cut")] == [*["done"] * 4, "waiting"]
    again = run_sweep(sweep, tmp_path / "cut", runner=dies)
    assert runs[5:] == ["trial-0004", "trial-0005"]

    def results(trials: list[Trial]) -> list[tuple[int, dict[str, Any], float]]:
        return [(trial.number, dict(trial.settings), trial.metrics["loss"]) for trial in trials]

    assert results(again) == results(whole)
    # More trials go on from all of these.
    more = run_sweep(Sweep(recipe=recipe, ranges=(RATE, WARM_UP), trials=7, sampler="tpe"), tmp_path / "cut")
    assert {trial.number for trial in more} == set(range(7))


def test_a_sweep_goes_on_with_its_own_sampler_alone(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    sweep = Sweep(recipe=recipe, assignments=("training.steps=1",), ranges=(RATE,), trials=1, sampler="tpe")
    run_sweep(sweep, out)
    with pytest.raises(SettingsError, match="another sampler"):
        run_sweep(Sweep(recipe=recipe, assignments=("training.steps=1",), ranges=(RATE,), trials=1), out)


def test_settings_that_cannot_be_used_are_found_before_anything_runs(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    for key, message in (("optimizer.lerning_rate", "learning_rate"), ("training.batch_size", "batch_size")):
        with pytest.raises(SettingsError, match=message):
            run_sweep(Sweep(recipe=recipe, ranges=(Range(key, -4, 4),), trials=2, sampler="tpe"), out)
    with pytest.raises(SettingsError, match="--trials 20"):
        run_sweep(Sweep(recipe=recipe, ranges=(RATE,), sampler="tpe"), out)
    assert not out.exists()


def test_without_optuna_the_extra_is_named_and_nothing_is_left(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"diptych\[sweep\]"):
        run_sweep(Sweep(recipe=recipe, ranges=(RATE,), trials=2, sampler="tpe"), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
