"""What stands where there are no words: None, NaN, empty text, and lists of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import Example, open_source
from diptych.data.left_out import left_out_of
from diptych.data.sources.columns import written_list
from tests.data.image_files import drawing, encoded
from tests.data.tar_files import write_tar

NAN = float("nan")
NOTHING: list[Any] = [None, NAN, "", "  "]
IMAGE = encoded(drawing(), "PNG")


@pytest.fixture(autouse=True)
def image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)


def jsonl(folder: Path, row: dict[str, Any]) -> Example:
    (folder / "t.jsonl").write_text(json.dumps({"image": "a.png", **row}))
    return open_source(folder / "t.jsonl")[0]


def beside(folder: Path, record: dict[str, Any]) -> Example:
    (folder / "a.json").write_text(json.dumps(record))
    return open_source(folder)[0]


def in_tar(folder: Path, record: dict[str, Any]) -> Example:
    members = [("1.png", IMAGE), ("1.json", json.dumps(record).encode())]
    return open_source(write_tar(folder / "s.tar", members))[0]


def in_parquet(folder: Path, row: dict[str, Any]) -> Example:
    parquet.write_table(pyarrow.Table.from_pylist([{"image": "a.png", **row}]), folder / "t.parquet")
    return open_source(folder / "t.parquet")[0]


def saved(folder: Path, row: dict[str, Any]) -> Example:
    made = folder / "saved"
    made.mkdir()
    table = pyarrow.Table.from_pylist([{"image": str(folder / "a.png"), **row}])
    with (
        pyarrow.OSFile(str(made / "d.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    (made / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    (made / "dataset_info.json").write_text("{}")
    return open_source(made)[0]


FORMS = [jsonl, beside, in_tar, in_parquet, saved]


@pytest.mark.parametrize("read", FORMS)
@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_nothing_is_no_caption_no_label_and_no_tag(tmp_path: Path, read: Any, nothing: Any) -> None:
    example = read(tmp_path, {"caption": nothing, "label": nothing, "tags": nothing})
    assert (example.captions, example.label, example.tags) == ((), None, ())


@pytest.mark.parametrize("read", [jsonl, beside, in_tar])
def test_nothing_in_a_list_is_passed_over(tmp_path: Path, read: Any) -> None:
    example = read(tmp_path, {"captions": [None, "a cat", NAN, " "], "tags": [NAN, "pet", None]})
    assert (example.captions, example.tags) == (("a cat",), ("pet",))


def test_the_text_of_a_shard_is_used_where_its_json_says_nothing(tmp_path: Path) -> None:
    members = [("1.png", IMAGE), ("1.json", b'{"caption": NaN}'), ("1.txt", b"a cat")]
    assert open_source(write_tar(tmp_path / "s.tar", members))[0].captions == ("a cat",)


def test_the_text_beside_an_image_is_used_where_its_json_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat")
    assert beside(tmp_path, {"caption": NAN}).captions == ("a cat",)


def test_whole_numbers_that_a_missing_one_made_decimal_are_labels(tmp_path: Path) -> None:
    assert jsonl(tmp_path, {"label": 3.0}).label == "3"
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"image": [IMAGE] * 3, "label": [1.0, NAN, 0.0]})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "l.parquet"
    )
    source = open_source(tmp_path / "l.parquet")
    assert [source[row].label for row in range(3)] == ["dog", None, "cat"]


def test_metadata_hold_no_nan(tmp_path: Path) -> None:
    assert jsonl(tmp_path, {"author": NAN, "year": 1.5}).metadata == {"author": None, "year": 1.5}


@pytest.mark.parametrize("word", ["nan", "None"])
def test_a_word_that_may_mean_nothing_is_kept_and_said(tmp_path: Path, word: str) -> None:
    (tmp_path / "t.csv").write_text(f"image,caption\na.png,{word}\na.png,{word}\na.png,a cat\n")
    source = open_source(tmp_path / "t.csv")
    assert source[0].captions == (word,)
    assert (
        f"the caption is the word {word.lower()!r} in 2 of the 3 rows that were checked" in source.describe()
    )
    rows = pyarrow.table({"image": ["a.png"] * 3, "caption": ["a"] * 3, "label": [word, word, "cat"]})
    parquet.write_table(rows, tmp_path / "t.parquet")
    assert left_out_of(open_source(tmp_path / "t.parquet")).remarks == (
        f"{tmp_path / 't.parquet'}: the label is the word {word.lower()!r} in 2 of the 3 rows that were checked; "
        "leave the cell of a missing label empty",
    )


@pytest.mark.parametrize(
    ("cell", "strings"),
    [
        ('["a cat", "b"]', ["a cat", "b"]),
        ("['a cat', 'b']", ["a cat", "b"]),
        ("['a cat' 'b']", ["a cat", "b"]),
        ("['a cat'\n 'b']", ["a cat", "b"]),
        ("""['it\\'s', "it's", None, nan]""", ["it's", "it's"]),
        ('["caf\\u00e9", null]', ["café"]),
        (" ['one'] ", ["one"]),
        ("[]", []),
        ("[1, 2]", None),
        ("[a cat]", None),
        ("['a'] and ['b']", None),
        ("a ['b']", None),
        ("['a'", None),
        ("[" + "'a' \n" * 5000, None),
        ("[" + "'a' \n " * 5000 + "x]", None),
    ],
)
def test_a_cell_that_is_a_list_is_told_from_text(cell: str, strings: list[str] | None) -> None:
    assert written_list(cell) == strings


def test_cells_that_are_lists_are_several_captions_tags_and_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "image,caption,tags,label\n"
        'a.png,"[\'a cat\', \'b, c\']","[""pet"", ""red""]","[\'x\', \'y\']"\n'
        'a.png,"a list: [\'a\']","pet, red",x\n'
    )
    source = open_source(tmp_path / "t.csv")
    assert (source[0].captions, source[0].tags, source[0].label) == (("a cat", "b, c"), ("pet", "red"), "x;y")
    assert (source[1].captions, source[1].tags, source[1].label) == (("a list: ['a']",), ("pet", "red"), "x")
    assert "lists in the column 'caption' are read as several captions" in source.describe()


def test_empty_cells_beyond_the_columns_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption\na.png,one,,\na.png,two\n")
    source = open_source(tmp_path / "t.csv")
    assert [source[row].captions for row in range(2)] == [("one",), ("two",)]
