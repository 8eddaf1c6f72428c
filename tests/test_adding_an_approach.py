"""docs/adding-an-approach.md shows the code itself."""

import ast
import dataclasses
import re
from pathlib import Path

from diptych.training.approaches import APPROACHES
from diptych.training.approaches.approach import Approach
from diptych.training.approaches.contrastive import ClipTask

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-an-approach.md").read_text("utf-8")


def test_every_block_is_part_of_the_file_that_stands_above_it() -> None:
    blocks = re.findall(r"^\[`([^`]+)`\]\(\.\./\1\):\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```") // 2 == 10
    for name, code in blocks:
        assert code in (ROOT / name).read_text("utf-8"), f"{name} has changed; so must the page"


def test_what_a_task_can_override_is_there_and_so_is_every_fact() -> None:
    overridden, facts = (
        re.findall(r"^\| [^|]+ \| `(\w+)` \|", table, re.MULTILINE)
        for table in re.findall(r"^\| to say (?:.|\n)*?\n\n", PAGE, re.MULTILINE)
    )
    assert len(overridden) == 4
    assert all(hasattr(ClipTask, name) for name in overridden)
    assert len(facts) == 5
    assert set(facts) <= {field.name for field in dataclasses.fields(Approach)}


def test_every_approach_has_one_file_and_one_entry() -> None:
    folder = ROOT / "diptych" / "training" / "approaches"
    for name, approach in APPROACHES.items():
        home, _, file = approach.settings.__module__.rpartition(".")
        assert home == "diptych.training.approaches", name
        assert f"name: Literal[{name!r}]".replace("'", '"') in (folder / f"{file}.py").read_text("utf-8")


def test_nothing_outside_their_files_compares_the_name_of_an_approach() -> None:
    compared = []
    for path in sorted((ROOT / "diptych").rglob("*.py")):
        if path.parent.name == "approaches":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Compare):
                continue
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            if any(side.endswith(("objective.name", "objective")) for side in sides) and any(
                isinstance(side, ast.Constant | ast.Tuple) for side in (node.left, *node.comparators)
            ):
                compared.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert compared == []
