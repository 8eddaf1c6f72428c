"""Which folders an index may be made in."""

from pathlib import Path

import pytest

from diptych.errors import SearchIndexError
from diptych.search.building.separate import check_separate


@pytest.mark.parametrize(
    "name",
    ["images-2020/a.jpg", "images-old.jpg", "images-000001.lance.jpg", "thumbnails/a.jpg", "locked.txt"],
)
def test_names_that_resemble_those_of_an_index_are_other_things(tmp_path: Path, name: str) -> None:
    (tmp_path / "place" / name).parent.mkdir(parents=True)
    (tmp_path / "place" / name).touch()
    with pytest.raises(SearchIndexError, match="holds other things"):
        check_separate(str(tmp_path / "place"), str(tmp_path / "source"))


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "images-000001.lance/data/1",
        "images-000001.lance.sha256",
        "thumbnails/0f/x.jpg",
        ".index.json.1.tmp",
    ],
)
def test_what_a_killed_first_run_leaves_is_no_other_thing(tmp_path: Path, name: str) -> None:
    (tmp_path / "place" / name).parent.mkdir(parents=True)
    (tmp_path / "place" / name).touch()
    check_separate(str(tmp_path / "place"), str(tmp_path / "source"))
