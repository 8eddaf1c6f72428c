"""docs/approaches.md names every approach and every recipe that there is, and none besides; its commands are real."""

import re
import shlex
from pathlib import Path

import pytest

from diptych.cli.verbs import build_app
from diptych.training.approaches import APPROACHES
from diptych.training.recipes import load_recipe

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "approaches.md").read_text("utf-8")
SHELL = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in SHELL.splitlines()]
ROWS = [re.split(r" ?\| ?", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")][1:]


def names(column: int) -> set[str]:
    return {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])}


def test_every_approach_stands_in_the_table() -> None:
    assert names(2) == APPROACHES.keys()


def test_the_table_has_the_evaluations_that_suit_an_approach() -> None:
    cells = {row[1].split(" (")[0]: row[4] for row in ROWS}
    found: dict[str, set[str]] = {}
    for row in ROWS:
        said = row[4].removeprefix("as ")
        evaluations = set(re.findall(r"`([^`]+)`", cells.get(said, said)))
        for name in re.findall(r"`([^`]+)`", row[2]):
            found.setdefault(name, set()).update(evaluations)
    for name, approach in APPROACHES.items():
        assert set(approach.evaluations) <= found[name], name


def test_every_recipe_does() -> None:
    assert names(3) == {file.stem for file in (ROOT / "recipes").glob("*.toml")}


def test_recipes_that_the_commands_name_are_there() -> None:
    used = set(re.findall(r"diptych train ([\w-]+)", PAGE))
    assert {"simclr", "simclr-finetune", "simclr-distil"} <= used <= names(3)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_understood_and_its_settings_make_a_recipe(command: list[str]) -> None:
    program, verb, *rest = command
    if program == "python":
        assert (ROOT / verb).is_file()
        assert "--quick" in (ROOT / verb).read_text("utf-8")
        return
    assert program == "diptych"
    _, bound, unused = build_app().parse_args([verb, *rest], exit_on_error=False, print_error=False)
    assert not unused
    if verb == "train":
        recipe = load_recipe(bound.arguments["recipe"], bound.arguments.get("assignments", ()))
        assert recipe.objective.name in APPROACHES


@pytest.mark.parametrize("task", sorted(names(4)))
def test_evaluations_that_the_table_names_are_tasks_of_evaluate(task: str) -> None:
    data = ("--train", "a", "--test", "b") if task in ("linear-probe", "few-shot") else ("--data", "a")
    command = ["evaluate", task, "--model", "m", *data]
    _, bound, _ = build_app().parse_args(command, exit_on_error=False, print_error=False)
    assert bound.arguments["model"] == "m"
