"""`diptych compare`: two suites, or two results, as a table and as JSON; and what cannot be compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych import config
from diptych.evaluation.comparison import exact_mcnemar, holm
from diptych.evaluation.suite.suite_files import read_result
from diptych.models.building import build_model
from diptych.weights.checkpoint import save_checkpoint
from tests.cli.command_line import Run
from tests.tiny_model import preprocessing, random_clip

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
SUITE = """
[[tasks]]
name = "colours"
task = "zero-shot"
data = "classes"

[[tasks]]
name = "words"
task = "zero-shot"
data = "classes"
templates = "photo"

[[tasks]]
name = "{more}"
task = "zero-shot"
data = "classes"
"""


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` and `b`: two untrained models at the same tasks, and one more each."""
    from diptych.cli.__main__ import main  # noqa: PLC0415

    top = tmp_path_factory.mktemp("compared")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (top / "classes" / name).mkdir(parents=True)
        for number in range(10):
            noise = random.integers(0, 120, (32, 32, 3))
            pixels = np.clip(np.array(colour) + noise - 60, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / "classes" / name / f"{number}.png")
    for number, name in enumerate("ab"):
        architecture = random_clip().architecture
        torch.manual_seed(number)
        model = save_checkpoint(
            top / f"model-{name}", build_model(architecture), config.plain(preprocessing())
        )
        suite = top / f"{name}.toml"
        suite.write_text(
            SUITE.format(more=f"only-{name}").replace('"classes"', json.dumps(str(top / "classes")))
        )
        arguments = ("--suite", suite, "--model", model, "--out", top / name, "--precision", "float32")
        assert main(["evaluate", "all", *map(str, arguments), "--device", "cpu"]) == 0
    return top


def test_the_json_is_what_the_files_of_both_say(suites: Path, run: Run) -> None:
    found = run("compare", suites / "a", suites / "b", "--json", "--changed", 3).json
    assert [task["name"] for task in found["tasks"]] == ["colours", "words"]
    assert found["left_out"] == {"only-a": "only the first has it", "only-b": "only the second has it"}
    tested = []
    for task in found["tasks"]:
        one, other = (read_result(suites / side / "tasks" / f"{task['name']}.json").report for side in "ab")
        assert one is not None
        assert other is not None
        assert one.outcomes is not None
        assert other.outcomes is not None
        top1 = task["differences"][0]
        assert (top1["metric"], task["count"]) == ("top1", 30)
        assert top1["first"] == pytest.approx(one.scores.metrics["top1"])
        assert top1["second"] == pytest.approx(other.scores.metrics["top1"])
        change = other.outcomes.scores["top1"] - one.outcomes.scores["top1"]
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        assert gained + lost > 0  # the models differ, or nothing here is tested
        assert (top1["gained"], top1["lost"], task["changed"]) == (gained, lost, gained + lost)
        assert top1["p_value"] == exact_mcnemar(gained, lost)
        assert len(task["changes"]) == min(3, gained + lost)
        tested.append(top1["p_value"])
        per_class = next(row for row in task["differences"] if row["metric"] == "mean_per_class")
        assert per_class["second"] == pytest.approx(other.scores.metrics["mean_per_class"])
    assert [task["differences"][0]["p_adjusted"] for task in found["tasks"]] == holm(tested)
    assert found["correction"] == "holm"


def test_the_table_says_the_same_for_people(suites: Path, run: Run) -> None:
    outcome = run("compare", suites / "a", suites / "b", "--changed", 2)
    assert outcome.code == 0
    found = run("compare", suites / "a", suites / "b", "--json").json["tasks"][0]
    top1 = found["differences"][0]
    lines = outcome.out.splitlines()
    assert lines[0].split()[:6] == ["task", "images", "metric", "first", "second", "difference"]
    assert lines[1].startswith("colours")
    assert f"{100 * top1['first']:.1f} %" in lines[1]
    assert f"{100 * top1['difference']:+.1f}" in lines[1]
    assert f"colours: {found['changed']} examples changed; the first 2:" in outcome.out
    assert "p (Holm) is corrected for 2 tests" in outcome.out
    assert "left out: only-a: only the first has it" in outcome.err


def test_a_model_is_no_better_than_itself(suites: Path, run: Run) -> None:
    for task in run("compare", suites / "a", suites / "a", "--json").json["tasks"]:
        for row in task["differences"]:
            assert (row["difference"], row["interval"], row["gained"], row["lost"]) == (0, [0, 0], 0, 0)
            assert row["p_value"] in (None, 1.0)


def test_two_files_are_compared_whatever_their_tasks_are_called(suites: Path, run: Run) -> None:
    found = run(
        "compare", suites / "a/tasks/only-a.json", suites / "b/tasks/only-b.json", "--json", "--changed", 0
    ).json
    suite = run("compare", suites / "a", suites / "b", "--json", "--changed", 0).json
    # The same task under other names.
    assert found["tasks"][0]["name"] == "only-a"
    assert [row["first"] for row in found["tasks"][0]["differences"]] == [
        row["first"] for row in suite["tasks"][0]["differences"]
    ]


def test_a_failed_task_is_left_out_and_said(suites: Path, tmp_path: Path, run: Run) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(suites / "b", broken)
    file = broken / "tasks" / "colours.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "status": "failed", "error": "no disk"}))
    outcome = run("compare", suites / "a", broken, "--json")
    assert [task["name"] for task in outcome.json["tasks"]] == ["words"]
    assert "colours failed: no disk" in outcome.err


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("nowhere", "nowhere/suite.json: no such file; expected a folder that diptych evaluate all wrote"),
        (".", "suite.json: no such file; expected a folder that diptych evaluate all wrote"),
        (
            "mine.json",
            "mine.json: not a result of diptych evaluate all (KeyError: 'format_version'); delete it",
        ),
    ],
)
def test_what_is_no_result_is_an_error_in_one_line(suites: Path, run: Run, other: str, said: str) -> None:
    Path("mine.json").write_text("{}")
    outcome = run("compare", suites / "a", other)
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: {said}")
    assert outcome.err.count("\n") == 1
