"""docs/approaches.md names every approach and every recipe that there is, and none besides."""

import re
from pathlib import Path

from diptych.training.tasks import TASKS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "approaches.md").read_text("utf-8")
ROWS = [re.split(r" ?\| ?", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")][1:]


def names(column: int) -> set[str]:
    return {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])}


def test_every_approach_stands_in_the_table() -> None:
    assert names(2) == TASKS.keys()


def test_every_recipe_does() -> None:
    assert names(3) == {file.stem for file in (ROOT / "recipes").glob("*.toml")}


def test_recipes_that_the_commands_name_are_there() -> None:
    used = set(re.findall(r"diptych train ([\w-]+)", PAGE))
    assert {"simclr", "simclr-finetune", "simclr-distil"} <= used <= names(3)
