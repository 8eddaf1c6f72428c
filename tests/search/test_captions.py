"""All captions of a picture are kept: of one row, and of several rows with one file."""

from pathlib import Path

import pytest

from diptych.data.example import Example
from diptych.data.sources.opening import open_source
from diptych.errors import DataError
from diptych.search.building.build import refresh
from diptych.search.building.caption_rows import with_all_captions
from diptych.search.image_index import Index
from diptych.search.query import Match, result_of
from tests.memory_store import MemoryDatabase
from tests.search.fake_encoder import FakeEncoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def table(folder: Path, rows: list[tuple[str, str]]) -> Path:
    lines = ["image,caption", *(f"{name}.png,{caption}" for name, caption in rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows.csv"


def names(index: Index, filter_: str) -> str:
    return "".join(sorted(Path(item.uri).stem for item in index.items(filter_)))


def test_every_caption_of_a_picture_is_found(folder: Path) -> None:
    (folder / "a.txt").write_text("a red bicycle\nRad im Hof\n")
    (folder / "b.txt").write_text("a tree\n")
    database = MemoryDatabase()
    refresh(database, open_source(folder), FakeEncoder())
    index = Index(database)
    assert names(index, "caption contains HOF") == "a"
    assert names(index, 'caption = "Rad im Hof"') == "a"
    assert names(index, 'caption = "a red bicycle"') == "a"
    assert names(index, 'caption != "Rad im Hof"') == "bc"
    assert names(index, "caption starts Rad") == "a"
    assert names(index, 'caption starts "Rad im Garten"') == ""
    assert names(index, 'caption in ("Rad im Hof", "a tree")') == "ab"
    assert names(index, 'caption = ""') == "c"
    assert names(index, 'caption contains "bicycleRad"') == ""
    (item,) = index.items("caption contains hof")
    assert (item.caption, item.captions) == ("a red bicycle", ("a red bicycle", "Rad im Hof"))
    assert result_of(Match(item, 0.5))["captions"] == ["a red bicycle", "Rad im Hof"]


def test_rows_with_one_file_are_one_picture_with_all_their_captions(folder: Path) -> None:
    rows = [("a", "one"), ("b", "two"), ("a", "three"), ("c", "four"), ("a", "one"), ("b", "five")]
    source = open_source(table(folder, rows))
    database, encoder = MemoryDatabase(), FakeEncoder()
    summary = refresh(database, source, encoder)
    assert (summary.added, summary.repeated, len(encoder.embedded)) == (3, 3, 3)
    captions = {Path(item.uri).stem: item.captions for item in Index(database).items()}
    assert captions == {"a": ("one", "three"), "b": ("two", "five"), "c": ("four",)}
    before = dict(database._tables["images-000001"]._rows)
    assert refresh(database, open_source(table(folder, rows)), FakeEncoder()).unchanged == 3
    assert dict(database._tables["images-000001"]._rows) == before


def test_a_caption_that_a_later_row_adds_needs_no_embedding(folder: Path) -> None:
    database = MemoryDatabase()
    refresh(database, open_source(table(folder, [("a", "one"), ("b", "two")])), FakeEncoder())
    encoder = FakeEncoder()
    refresh(database, open_source(table(folder, [("a", "one"), ("b", "two"), ("a", "three")])), encoder)
    assert encoder.embedded == []
    assert names(Index(database, freshness=0), "caption = three") == "a"


class Rows:
    """Rows of a table: the paths of their images, None for a row that cannot be read."""

    name, fingerprint = "rows", "0" * 64

    def __init__(self, paths: list[str | None]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> Example:
        path = self.paths[position]
        if path is None:
            raise DataError("unreadable")
        return Example(str(position), Path(path), captions=(str(position),), tags=(f"tag {position}",))

    def describe(self) -> str:
        return self.name


def test_rows_are_joined_by_the_file_whatever_its_spelling() -> None:
    rows = Rows([None, "x/a", "x/./a", "x/b", None, "x/y/../a"])
    joined = with_all_captions(rows)
    assert [joined[place].captions for place in (1, 2, 3, 5)] == [("1", "2", "5")] * 2 + [("3",)] + [
        ("1", "2", "5")
    ]
    assert joined[5].tags == ("tag 1", "tag 2", "tag 5")
    assert len(joined) == 6
    unique = Rows(["x/a", "x/b"])
    assert with_all_captions(unique) is unique


def test_every_caption_of_an_image_inside_a_parquet_table_is_found(tmp_path: Path) -> None:
    """Rows of one image have one key there, and so one place in the index."""
    table, images = pytest.importorskip("pyarrow"), [b"one", b"other", b"one"]
    columns = {
        "image": [{"bytes": image, "path": "x.png"} for image in images],
        "caption": ["first", "b", "second"],
    }
    pytest.importorskip("pyarrow.parquet").write_table(table.table(columns), tmp_path / "rows.parquet")
    database = MemoryDatabase()
    summary = refresh(database, open_source(tmp_path / "rows.parquet"), FakeEncoder())
    assert (summary.added, summary.repeated) == (2, 1)
    captions = {item.captions for item in Index(database).items()}
    assert captions == {("first", "second"), ("b",)}
