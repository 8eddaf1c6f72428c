"""docs/adding-an-approach.md shows the code itself."""

import re
from pathlib import Path

from diptych.training.approaches import TASKS
from diptych.training.approaches.contrastive import ClipTask

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-an-approach.md").read_text("utf-8")


def test_every_block_is_part_of_the_file_that_stands_above_it() -> None:
    blocks = re.findall(r"^\[`([^`]+)`\]\(\.\./\1\):\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```") // 2 == 8
    for name, code in blocks:
        assert code in (ROOT / name).read_text("utf-8"), f"{name} has changed; so must the page"


def test_what_a_task_can_override_is_there() -> None:
    names = re.findall(r"\| `(\w+)` \|", PAGE)
    assert len(names) == 6
    assert all(hasattr(ClipTask, name) or name == "towers" for name in names)


def test_every_approach_has_one_file_and_one_entry() -> None:
    folder = ROOT / "diptych" / "training" / "approaches"
    for name, task in TASKS.items():
        assert task.__module__.startswith("diptych.training.approaches."), name
        assert (folder / f"{task.__module__.rpartition('.')[2]}.py").exists()
