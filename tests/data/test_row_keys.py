"""Keys of rows: paths and hashes, which stay when a table changes elsewhere."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import open_source
from diptych.data.sources.row_keys import NamedPaths, content_key, path_key
from tests.data.tar_files import png

Write = Callable[[Path, Sequence[str]], str]

NAMES = ["a.png", "b.png", "a.png", "./a.png", "b.png", "a.png"]
KEYS = ["a.png", "b.png", "a.png/2", "./a.png", "b.png/2", "a.png/3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(("a", "b", "c")):
        (tmp_path / f"{name}.png").write_bytes(png(shade))
    return tmp_path


def keys(place: str | Path) -> list[str]:
    source = open_source(place)
    return [source[position].key for position in range(len(source))]


def as_csv(folder: Path, names: Sequence[str]) -> str:
    (folder / "t.csv").write_text("image,caption\n" + "".join(f" {name},words\n" for name in names))
    return str(folder / "t.csv")


def as_jsonl(folder: Path, names: Sequence[str]) -> str:
    (folder / "t.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    return str(folder / "t.jsonl")


def as_parquet(folder: Path, names: Sequence[str]) -> str:
    parquet.write_table(pyarrow.table({"image": list(names)}), folder / "t.parquet", row_group_size=2)
    return str(folder / "t.parquet")


def as_struct_of_paths(folder: Path, names: Sequence[str]) -> str:
    cells = pyarrow.array([{"path": name} for name in names])
    parquet.write_table(pyarrow.table({"image": cells}), folder / "s.parquet", row_group_size=4)
    return str(folder / "s.parquet")


def as_saved_dataset(folder: Path, names: Sequence[str]) -> str:
    place = folder / f"saved {len(names)}"
    place.mkdir()
    found = pyarrow.table({"image": list(names)})
    with pyarrow.ipc.new_stream(str(place / "data.arrow"), found.schema) as stream:
        stream.write_table(found, max_chunksize=4)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (place / "dataset_info.json").write_text("{}")
    for name in ("a.png", "b.png", "c.png"):
        (place / name).write_bytes((folder / name).read_bytes())
    return str(place)


FORMS = [as_csv, as_jsonl, as_parquet, as_struct_of_paths, as_saved_dataset]


@pytest.mark.parametrize("write", FORMS)
def test_a_row_is_known_by_its_path_and_repeats_are_numbered(write: Write, folder: Path) -> None:
    assert keys(write(folder, NAMES)) == KEYS


@pytest.mark.parametrize("write", FORMS)
def test_a_row_in_front_changes_no_key(write: Write, folder: Path) -> None:
    before = keys(write(folder, NAMES))
    assert keys(write(folder, ["c.png", *NAMES])) == ["c.png", *before]


def test_flickrs_token_file_numbers_repeats_and_passes_over_broken_lines(folder: Path) -> None:
    lines = ["a.png#0\tone", "a.png#1\ttwo", "b.png#0\tthree", "broken", "a.png#2\tfour"]
    (folder / "x.token.txt").write_text("\n".join(lines) + "\n")
    source = open_source(folder / "x.token.txt")
    assert [source[row].key for row in (0, 1, 2, 4)] == ["a.png", "a.png/2", "b.png", "a.png/3"]


def test_images_inside_a_table_are_known_by_their_bytes_whatever_their_name(folder: Path) -> None:
    def write(shades: Sequence[int]) -> list[str]:
        cells = [{"bytes": png(shade), "path": f"{row}.png"} for row, shade in enumerate(shades)]
        parquet.write_table(pyarrow.table({"image": cells}), folder / "i.parquet")
        found = keys(folder / "i.parquet")
        parquet.write_table(pyarrow.table({"image": [png(shade) for shade in shades]}), folder / "i.parquet")
        assert keys(folder / "i.parquet") == found
        return found

    before = write([1, 2, 1])
    assert before == [content_key(png(1)), content_key(png(2)), content_key(png(1))]
    assert write([3, 1, 2, 1])[1:] == before


def test_numbers_of_repeats_equal_a_slow_count() -> None:
    drawn = [f"{number}.png" for number in np.random.default_rng(0).integers(0, 40, 300)]
    named = NamedPaths()
    for name in drawn:
        named.add(name)
    assert named.earlier().tolist() == [drawn[:row].count(name) for row, name in enumerate(drawn)]
    named = NamedPaths()
    named.add("a.png")
    named.add("b.png")
    assert named.earlier().tolist() == []
    assert path_key("a.png", named.earlier(), 1) == "a.png"
    assert path_key(" a.png", np.array([0, 1], np.int32), 1) == "a.png/2"
