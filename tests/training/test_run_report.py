"""What is read back from a run's folder: of any age, killed at any moment, with numbers missing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import DataError
from diptych.runs.run_summary import read_run

RECIPE = {"training": {"batch_size": 64, "steps": 100}, "objective": {"name": "clip"}}


def make_run(folder: Path, lines: list[Any], recipe: dict[str, Any] | None = RECIPE) -> Path:
    folder.mkdir()
    if recipe is not None:
        (folder / "recipe.json").write_text(json.dumps(recipe))
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_a_run_is_read_with_what_it_has(tmp_path: Path) -> None:
    lines = [{"step": 10 * n, "loss": 5.0 - 0.1 * n, "seconds": 2.0 * n} for n in range(1, 6)]
    lines[-1]["digits_top1"] = 0.25
    run = read_run(make_run(tmp_path / "first", lines))
    assert (run.name, run.step, run.total, run.state) == ("first", 50, 100, "running")
    assert run.evaluations == ["digits_top1"]
    assert run.curve("digits_top1") == [(50, 0.25)]
    assert run.chance_loss == math.log(64)
    assert run.data_share is None
    assert run.verdict is None
    # 10 steps in 2 seconds, 50 steps left.
    assert run.seconds_left == pytest.approx(10.0)


def test_lines_cut_short_and_lines_that_are_no_records_are_counted(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 4.0},
        "[]\n",
        '{"loss": 1}\n',
        {"step": 2, "loss": 3.0, "note": "x"},
        '{"step": 3, "lo',
    ]
    run = read_run(make_run(tmp_path / "run", lines))
    assert [dict(record) for record in run.records] == [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}]
    assert run.damaged == 3


def test_numbers_that_are_none_are_counted_and_left_out(tmp_path: Path) -> None:
    run = read_run(
        make_run(tmp_path / "run", [{"step": 1, "loss": math.nan, "accuracy": 0.5}, {"step": 2, "loss": 1.0}])
    )
    assert run.not_finite == {"loss": 1}
    assert run.curve("loss") == [(2, 1.0)]


def test_a_step_that_was_done_again_counts_as_it_was_last(tmp_path: Path) -> None:
    run = read_run(
        make_run(
            tmp_path / "run", [{"step": n, "loss": float(n)} for n in (1, 2, 3)] + [{"step": 2, "loss": 9.0}]
        )
    )
    assert run.curve("loss") == [(1, 1.0), (2, 9.0), (3, 3.0)]


def test_the_state_of_a_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"step": 100, "loss": 1.0}])
    written = folder.joinpath("metrics.jsonl").stat().st_mtime
    assert read_run(folder, now=written + 10).state == "running"
    assert read_run(folder, now=written + 3600).state == "stopped"
    (folder / "model").mkdir()
    (folder / "model" / "diptych.json").write_text("{}")
    assert read_run(folder, now=written + 3600).state == "done"
    # A model from before the run was asked to be longer does not make it done.
    longer = {"training": {"batch_size": 64, "steps": 200}}
    (folder / "recipe.json").write_text(json.dumps(longer))
    assert read_run(folder, now=written + 3600).state == "stopped"


def test_the_length_of_a_run_comes_from_steps_or_samples_or_is_not_known(tmp_path: Path) -> None:
    samples = {"training": {"batch_size": 64, "samples": 1000}}
    assert read_run(make_run(tmp_path / "a", [], samples)).total == 15
    unknown = read_run(make_run(tmp_path / "b", [{"step": 5, "seconds": 1.0}], None))
    assert (unknown.total, unknown.seconds_left, unknown.chance_loss, unknown.recipe) == (
        None,
        None,
        None,
        {},
    )


def test_a_run_that_has_not_logged_yet_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    run = read_run(tmp_path)
    assert (run.step, run.records, run.state) == (0, [], "running")
    assert run.seconds_left is None
    assert run.final() == {}


def test_a_folder_without_a_run_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.02, "compute-bound"), (0.19, "compute-bound"), (0.21, "data-bound"), (0.6, "data-bound")],
)
def test_the_verdict_is_about_the_last_quarter(tmp_path: Path, share: float, verdict: str) -> None:
    lines = [{"step": n, "data_share": 0.9 if n <= 70 else share} for n in range(10, 101, 10)]
    run = read_run(make_run(tmp_path / "run", lines))
    assert run.data_share == pytest.approx(share)
    assert run.verdict == verdict


def test_chance_is_not_ln_n_for_the_sigmoid_objective(tmp_path: Path) -> None:
    recipe = RECIPE | {"objective": {"name": "siglip"}}
    assert read_run(make_run(tmp_path / "run", [{"step": 1, "loss": 1.0}], recipe)).chance_loss is None


def test_final_figures_are_means_of_the_last_tenth_where_batches_make_them_noisy(tmp_path: Path) -> None:
    lines = [{"step": n, "loss": float(n), "learning_rate": n / 100} for n in range(1, 101)]
    lines[50]["digits_top1"] = 0.5
    final = read_run(make_run(tmp_path / "run", lines)).final()
    assert final["loss"] == sum(range(90, 101)) / 11
    assert final["learning_rate"] == 1.0
    assert final["digits_top1"] == 0.5
