"""`diptych sweep`: its table and its JSON, the direction of the metric, and what is wrong usage."""

from pathlib import Path

import pytest

from diptych.runs.sweep_folder import read_sweep
from tests.cli.command_line import Run

RECIPE = """
[model.architecture]
embed_dim = 16
image = { resolution = 32, patch = 16, width = 64, layers = 1 }
text = { width = 64, context_length = 16 }
[data]
train = "PICTURES"
[augmentation]
name = "none"
[schedule]
warmup_steps = 1
[training]
steps = 8
batch_size = 2
"""


@pytest.fixture
def recipe(pictures: Path) -> str:
    Path("tiny.toml").write_text(RECIPE.replace("PICTURES", str(pictures)))
    return "tiny.toml"


def test_sweep_prints_a_table_and_gives_the_same_as_json(recipe: str, run: Run) -> None:
    rates = "--grid", "optimizer.learning_rate=1e-9,1e-2"
    first = run("sweep", recipe, *rates, "--device", "cpu")
    assert first.code == 0, first.err
    lines = [line.split() for line in first.out.splitlines() if "│" in line]
    assert [line[1] for line in lines] == ["1", "0"]  # the trial that learned comes first
    assert lines[0][3] == "0.01"
    assert "sorted by loss, minimised" in first.out
    assert first.out.splitlines()[-1] == "best: runs/tiny-sweep/trial-0001"
    assert "trial 1/2: optimizer.learning_rate 1e-09: loss" in first.err
    again = run("sweep", recipe, *rates, "--json", "--device", "cpu")
    assert "trial 1/2" not in again.err  # nothing ran
    assert again.json.keys() == {"metric", "goal", "best", "trials"}
    assert again.json["best"] == "runs/tiny-sweep/trial-0001"
    trial = again.json["trials"][0]
    assert trial.keys() == {"number", "folder", "settings", "status", "metrics", "error"}
    assert trial["settings"] == {"optimizer.learning_rate": 1e-2}
    assert trial["metrics"]["loss"] == read_sweep("runs/tiny-sweep")[1].metrics["loss"]


def test_assignments_hold_for_every_trial_and_other_metrics_are_maximised(recipe: str, run: Run) -> None:
    outcome = run(
        *("sweep", recipe, "--set", "training.steps=1", "--random", "optimizer.weight_decay=0.01..0.5"),
        *("--trials", "2", "--metric", "accuracy", "--out", "here", "--json", "--device", "cpu"),
    )
    assert outcome.json["goal"] == "maximise"
    assert [trial["metrics"]["step"] for trial in outcome.json["trials"]] == [1, 1]


def test_a_failure_is_shown_and_is_exit_code_1_only_where_nothing_succeeded(recipe: str, run: Run) -> None:
    data = "data.train=nowhere"
    outcome = run("sweep", recipe, "--set", data, "--grid", "training.seed=1,2", "--device", "cpu")
    assert outcome.code == 1
    assert "failed because" in outcome.out
    assert "nowhere: no such file or folder" in outcome.out
    assert "best:" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--minimise", "--maximise", "--grid", "training.seed=1,2"), "give one of them", 2),
        (("--trials", "0", "--grid", "training.seed=1,2"), "expected at least 1", 2),
        ((), "nothing to sweep", 1),
        (("--sampler", "tpe", "--random", "training.seed=1..9"), "needs a number of trials: --trials 20", 1),
        (("--grid", "training.sede=1,2"), "did you mean 'seed'", 1),
    ],
)
def test_sweeps_that_make_no_sense(
    recipe: str, run: Run, arguments: tuple[str, ...], said: str, code: int
) -> None:
    outcome = run("sweep", recipe, *arguments, "--device", "cpu")
    assert outcome.code == code
    assert said in outcome.err
    assert not Path("runs").exists()
