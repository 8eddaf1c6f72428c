"""docs/map.md names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_map_names_modules_that_exist_each_once_a_walk() -> None:
    walks = (ROOT / "docs" / "map.md").read_text("utf-8").split("\n## ")[1:]
    assert len(walks) == 4
    for walk in walks:
        files = re.findall(r"^\d+\. `([\w/]+\.py)`", walk, re.M)
        assert len(files) >= 10
        assert len(set(files)) == len(files)
        assert [file for file in files if not (ROOT / "diptych" / file).is_file()] == []
