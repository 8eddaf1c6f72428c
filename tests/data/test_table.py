import csv
import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from diptych.data import Example, Source, open_source
from diptych.errors import DataError, MissingExtraError, SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images for the tables to name."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c, d.jpg"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_all(source: Source) -> list[Example]:
    return [source[position] for position in range(len(source))]


# --- CSV and TSV: what is read ----------------------------------------------------------------------------


def test_a_row_is_an_example(folder: Path) -> None:
    path = table(folder, 'image,caption,label,tags,author\nimages/a.jpg,"a cat, asleep",cat,"pet, red",x\n')
    assert read_all(open_source(path)) == [
        Example(
            key="images/a.jpg",
            image=folder / "images" / "a.jpg",
            captions=("a cat, asleep",),
            tags=("pet", "red"),
            label="cat",
            metadata={"author": "x"},
        )
    ]


@pytest.mark.parametrize("image", ["image", "filepath", "FilePath", " path ", "file_name", "image_path"])
@pytest.mark.parametrize("caption", ["caption", "title", "Text", "captions"])
def test_usual_names_are_found(folder: Path, image: str, caption: str) -> None:
    (example,) = read_all(open_source(table(folder, f"id,{caption},{image}\n7,a boat,images/b.jpg\n")))
    assert (example.image, example.captions) == (folder / "images/b.jpg", ("a boat",))
    assert example.metadata == {"id": "7"}


def test_named_columns_are_used_instead_of_usual_ones(folder: Path) -> None:
    path = table(folder, "image,caption,label,pic,words,kind\nx,no,no,images/a.jpg,yes,cat\n")
    (example,) = read_all(open_source(path, image_column="pic", caption_column="words", label_column="kind"))
    assert (example.image, example.captions, example.label) == (folder / "images/a.jpg", ("yes",), "cat")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "t.csv"), ("\t", "t.tsv"), ("\t", "t.csv"), (";", "t.csv")]
)
def test_the_delimiter_is_found(folder: Path, delimiter: str, name: str) -> None:
    head = delimiter.join(["caption", "image"])
    row = delimiter.join(['"one, two; three\tfour"', "images/a.jpg"])
    (example,) = read_all(open_source(table(folder, f"{head}\n{row}\n", name)))
    assert example.captions == ("one, two; three\tfour",)


def test_a_given_delimiter_is_used_and_checked(folder: Path) -> None:
    path = table(folder, "image|caption\nimages/a.jpg|a|\n".replace("|\n", "\n"))
    assert read_all(open_source(path, delimiter="|"))[0].captions == ("a",)
    tabs = table(folder, "image\tcaption\nimages/a.jpg\ta\n")
    assert read_all(open_source(tabs, delimiter="\\t"))[0].captions == ("a",)
    for bad in ("", "ab", '"', "\n"):
        with pytest.raises(SettingsError, match="expected one character"):
            open_source(path, delimiter=bad)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_byte_order_mark_line_ends_and_empty_rows_change_nothing(
    folder: Path, end: str, mark: str, last: bool
) -> None:
    lines = ['"image",caption', "images/a.jpg,one", "", ",", 'images/b.jpg,"two\nlines ""quoted"""', ""]
    text = mark + end.join(lines)
    path = table(folder, text if last else text.removesuffix(end))
    assert [example.captions for example in read_all(open_source(path))] == [
        ("one",),
        ('two\nlines "quoted"',),
    ]


def test_a_field_longer_than_the_csv_module_allows_is_read(folder: Path) -> None:
    words = "word " * 100_000
    (example,) = read_all(open_source(table(folder, f"image,caption\nimages/a.jpg,{words}\n")))
    assert example.captions == (words.strip(),)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_any_table_that_csv_writes_comes_back(folder: Path, delimiter: str) -> None:
    cell = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    row = st.tuples(cell, cell)

    @settings(max_examples=50, deadline=None)
    @given(
        rows=st.lists(row, min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]), quoted=st.booleans()
    )
    def check(rows: list[tuple[str, str]], end: str, quoted: bool) -> None:
        if not quoted:
            # Left to choose, the `csv` module does not quote a lone carriage return, which nobody can read back.
            rows = [(words.replace("\r", " "), note.replace("\r", " ")) for words, note in rows]
        file = io.StringIO(newline="")
        writer = csv.writer(
            file,
            delimiter=delimiter,
            lineterminator=end,
            quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
        )
        writer.writerow(["words", "image", "note"])
        writer.writerows([words, "images/c, d.jpg", note] for words, note in rows)
        source = open_source(table(folder, file.getvalue()), caption_column="words")
        found = [(example.captions, example.metadata["note"]) for example in read_all(source)]
        assert found == [((words.strip(),) if words.strip() else (), note) for words, note in rows]

    check()


# --- CSV and TSV: what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column has a usual name for the image; it has no columns"),
        (
            "a.jpg,a cat\n",
            r"the columns are 'a\.jpg', 'a cat'; choose one with image_column \(--image-column\)",
        ),
        ("image,caption\n", "no rows below the column names"),
        ("image,image,caption\na,b,c\n", "2 columns named 'image' for the image"),
        (
            "image,caption\na.jpg,one\nb.jpg,two, three\n",
            r"line 3: 3 fields, but there are 2 columns \('image', 'caption'\)",
        ),
        ("image,caption\na.jpg,one\nb.jpg\n", "line 3: 1 fields, but there are 2 columns"),
        ('image,caption\na.jpg,"x\ny"\n,z\n', "line 4: the image column holds ''"),
        (
            'image,caption\na.jpg,one\nb.jpg,"never closed\n\n',
            r"line 3: this row cannot be read \(unexpected end",
        ),
        ('image,caption\na.jpg,"one" two\n', "line 2: this row cannot be read"),
        (b"image,caption\na.jpg,one\nb.jpg,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        ("image,caption\na.jpg,é".encode("utf-16"), "UTF-16 text; save the table as UTF-8"),
        ("image,caption\rimages/a.jpg,one\r", "line 1: this row cannot be read"),
        ("image,caption\nhttps://x.org/a.jpg,one\n", r"line 2: the image is an address .* img2dataset"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_with_its_line(
    folder: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"t\.csv.*{message}"):
        open_source(table(folder, text))


@pytest.mark.parametrize("option", ["image_column", "caption_column", "label_column"])
def test_a_missing_column_lists_those_that_exist(folder: Path, option: str) -> None:
    path = table(folder, "image,caption\nimages/a.jpg,one\n")
    with pytest.raises(
        DataError, match=rf"no column 'nme' .*are 'image', 'caption'; choose one with {option}"
    ):
        open_source(path, **{option: "nme"})


def test_a_missing_image_is_an_error_when_it_is_read_and_is_counted(folder: Path) -> None:
    source = open_source(table(folder, 'image,caption\nimages/a.jpg,"x\ny"\nimages/z.jpg,two\n'))
    assert read_all_but(source, 1) == [("x\ny",)]
    with pytest.raises(DataError, match=r"t\.csv, line 4: no such image: .*z\.jpg; paths are relative to"):
        source[1]
    assert "missing images: 1 of the first 2 rows" in source.describe()


def read_all_but(source: Source, left_out: int) -> list[tuple[str, ...]]:
    return [source[position].captions for position in range(len(source)) if position != left_out]


def test_a_table_that_changed_since_it_was_opened_is_an_error(folder: Path) -> None:
    path = table(folder, "image,caption\nimages/a.jpg,one\n")
    source = open_source(path)
    table(folder, "image,caption\nimages/b.jpg,something longer\n")
    with pytest.raises(DataError, match="changed while it was in use"):
        source[0]


# --- JSONL ------------------------------------------------------------------------------------------------


def test_json_lines_are_read(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "image": "images/a.jpg",
            "captions": ["one", "two"],
            "tags": ["t"],
            "code": "1F41F",
            "more": {"x": 1},
        },
        {"image": "images/b.jpg", "label": 3},
    ]
    text = "\ufeff" + json.dumps(rows[0]) + "\r\n\n" + json.dumps(rows[1])
    first, second = read_all(open_source(table(folder, text, "t.jsonl")))
    assert (first.captions, first.tags, first.group) == (("one", "two"), ("t",), "1F41F")
    assert first.metadata == {"more": {"x": 1}}
    assert (second.captions, second.label) == ((), "3")


@settings(max_examples=40, deadline=None)
@given(captions=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_any_captions_come_back_from_json_lines(
    captions: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    (folder / "a.jpg").touch()
    rows = [json.dumps({"file_name": "a.jpg", "text": caption}, ensure_ascii=False) for caption in captions]
    source = open_source(table(folder, "\n".join(rows), "t.jsonl"))
    assert [example.captions for example in read_all(source)] == [
        (caption.strip(),) if caption.strip() else () for caption in captions
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "images/a.jpg"}\n\n{"image": \n', r"t\.jsonl, line 3: not valid JSON"),
        ("[1]\n", "line 1: is a JSON list; expected one object"),
        ('{"pic": "a"}\n', "line 1: no column has a usual name for the image; the columns are 'pic'"),
        ('{"image": "images/a.jpg"}\n{"pic": 1}\n', "line 2: the image column holds None"),
        ("\n", "no rows"),
    ],
)
def test_bad_json_lines_are_errors_with_their_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(table(folder, text, "t.jsonl"))


def test_a_delimiter_is_not_for_json_lines(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"only text tables, such as \.csv and \.tsv, have a delimiter"):
        open_source(table(folder, '{"image": "x"}', "t.jsonl"), delimiter=",")


# --- Parquet ----------------------------------------------------------------------------------------------


def write_parquet(folder: Path, group: int = 2, **columns: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), folder / "t.parquet", row_group_size=group)
    return folder / "t.parquet"


def test_parquet_with_paths_is_read(folder: Path) -> None:
    path = write_parquet(
        folder, path=["images/a.jpg", "images/b.jpg", "images/z.jpg"], caption=["1", "2", "3"]
    )
    source = open_source(path)
    assert (source[1].image, source[1].captions) == (folder / "images/b.jpg", ("2",))
    with pytest.raises(DataError, match=r"t\.parquet, row 3: no such image"):
        source[2]
    assert "3 rows of Parquet in 2 groups" in source.describe()


def test_parquet_of_the_datasets_library_is_read(folder: Path) -> None:
    images = [
        {"bytes": b"0", "path": "a.jpg"},
        {"bytes": None, "path": "images/b.jpg"},
        {"bytes": b"2", "path": None},
    ]
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    made = pyarrow.table({"image": images, "label": [1, 0, -1]})
    made = made.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(made, folder / "t.parquet")
    examples = read_all(open_source(folder / "t.parquet"))
    assert [example.image for example in examples] == [b"0", folder / "images/b.jpg", b"2"]
    assert [example.label for example in examples] == ["dog", "cat", "-1"]


def test_parquet_reads_the_same_after_pickling_and_in_any_order(folder: Path) -> None:
    count = 50
    path = write_parquet(
        folder, 7, image=[bytes([number]) for number in range(count)], text=[["a", "b"]] * count
    )
    source = open_source(path)
    expected = read_all(source)
    assert [example.image for example in expected] == [bytes([number]) for number in range(count)]
    assert expected[0].captions == ("a", "b")
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[position] for position in reversed(range(count))] == expected[::-1]
    assert copy.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: write_parquet(folder, image=[1.5]), "has the type double; expected paths"),
        (
            lambda folder: write_parquet(folder, x=["a"]),
            "no column has a usual name for the image; the columns are 'x'",
        ),
        (lambda folder: write_parquet(folder, image=pyarrow.array([], pyarrow.string())), "no rows"),
        (lambda folder: table(folder, b"PAR1 not", "t.parquet"), "cannot be read as Parquet"),
    ],
)
def test_bad_parquet_is_an_error(folder: Path, write: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(write(folder))


def test_parquet_without_pyarrow_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(folder, image=["images/a.jpg"])
    monkeypatch.delitem(sys.modules, "diptych.data.sources.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diptych\[data\]'"):
        open_source(path)


# --- all tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_travels_to_another_process_and_holds_no_rows(folder: Path, name: str) -> None:
    rows = [{"image": "images/a.jpg", "caption": f"caption {number} " + "x" * 100} for number in range(2000)]
    if name == "t.csv":
        text = "image,caption\n" + "".join(f"{row['image']},{row['caption']}\n" for row in rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    source = open_source(table(folder, text, name))
    sent = pickle.dumps(source)
    assert len(sent) < 2000 * 20 + 2000
    copy = pickle.loads(sent)
    assert [copy[position].captions for position in (0, 1999)] == [
        (rows[0]["caption"],),
        (rows[1999]["caption"],),
    ]
    assert copy.fingerprint == source.fingerprint
    for position in (-1, 2000):
        with pytest.raises(IndexError):
            copy[position]
