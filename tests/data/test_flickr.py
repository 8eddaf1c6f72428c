"""Made-up copies of the caption files of Flickr8k and Flickr30k as they are published."""

import contextlib
import pickle
from pathlib import Path

import pytest

from diptych.data import Example, Source, open_source
from diptych.data.reasons import reason_of
from diptych.errors import DataError, SettingsError

PIPED = """image_name| comment_number| comment
1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .
1000092795.jpg| 1| "Two young , White males are outside near many bushes .
2199200615.jpg| 3| A dog runs .
2199200615.jpg| 4   A dog runs across the grass .
2199200615.jpg| 2|"The dog" they say , runs .
"""
TOKENS = (
    "1000268201_693b08cb0e.jpg#0\tA child in a pink dress is climbing up a set of stairs .\n"
    '1000268201_693b08cb0e.jpg#1\t"A girl" going into a wooden building .\n'
    "1001773457_577c3a7d70.jpg#0\tA black dog and a spotted dog are fighting\n"
)


@pytest.fixture(params=["", "Images", "images", "flickr30k-images", "Flicker8k_Dataset"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with images in it, or in a folder beside the tables."""
    images = tmp_path / request.param
    images.mkdir(exist_ok=True)
    for name in (
        *("1000092795.jpg", "2199200615.jpg"),
        *("1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg"),
    ):
        (images / name).write_bytes(name.encode())
    return tmp_path


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def captions_of(source: Source) -> list[tuple[str, tuple[str, ...]]]:
    """The name of the image and the captions of each row that is not broken."""
    found = []
    for position in range(len(source)):
        with contextlib.suppress(DataError):
            example = source[position]
            assert isinstance(example.image, Path)
            found.append((example.image.name, example.captions))
    return found


@pytest.mark.parametrize("name", ["results.csv", "results.txt"])
@pytest.mark.parametrize("delimiter", [None, "|"])
@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_the_table_of_flickr30k_is_read(
    folder: Path, name: str, delimiter: str | None, mark: str, end: str
) -> None:
    source = open_source(written(folder, name, mark + PIPED.replace("\n", end)), delimiter=delimiter)
    assert captions_of(source) == [
        ("1000092795.jpg", ("Two young guys with shaggy hair look at their hands .",)),
        ("1000092795.jpg", ('"Two young , White males are outside near many bushes .',)),
        ("2199200615.jpg", ("A dog runs .",)),
        ("2199200615.jpg", ('"The dog" they say , runs .',)),
    ]
    assert source[0].metadata == {"comment_number": "0"}


def test_the_broken_row_of_flickr30k_is_said_and_does_not_end_anything(folder: Path) -> None:
    source = open_source(written(folder, "results.csv", PIPED))
    assert "1 of 5 rows cannot be read and are left out; the first is line 5" in source.describe()
    with pytest.raises(DataError) as caught:
        source[3]
    assert reason_of(caught.value) == "broken row"


def test_a_table_that_is_broken_throughout_is_an_error(folder: Path) -> None:
    rows = "2199200615.jpg| 4   A dog runs across the grass .\n" * 12
    with pytest.raises(DataError, match=r"line 5: 2 fields.*; 13 of 17 rows are broken"):
        open_source(written(folder, "results.csv", PIPED + rows))
    with pytest.raises(DataError, match="1 of 1 rows are broken"):
        open_source(written(folder, "one.csv", "image| comment\n1000092795.jpg\n"))


def test_the_captions_of_flickr8k_are_read(folder: Path) -> None:
    text = 'image,caption\n1000092795.jpg,A child .\n1000092795.jpg,"A ""girl"" , going in ."\n'
    assert captions_of(open_source(written(folder, "captions.txt", text))) == [
        ("1000092795.jpg", ("A child .",)),
        ("1000092795.jpg", ('A "girl" , going in .',)),
    ]


@pytest.mark.parametrize("name", ["Flickr8k.token.txt", "results_20130124.token"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_tokens_of_flickr_are_read(folder: Path, name: str, end: str) -> None:
    source = open_source(written(folder, name, TOKENS.replace("\n", end) + "no tab here\n"))
    assert captions_of(source) == [
        ("1000268201_693b08cb0e.jpg", ("A child in a pink dress is climbing up a set of stairs .",)),
        ("1000268201_693b08cb0e.jpg", ('"A girl" going into a wooden building .',)),
        ("1001773457_577c3a7d70.jpg", ("A black dog and a spotted dog are fighting",)),
    ]
    assert source[1].metadata == {"number": "1"}
    with pytest.raises(DataError, match="line 4: expected IMAGE#NUMBER, a tab and a caption; found 'no tab"):
        source[3]
    copy = pickle.loads(pickle.dumps(source))
    assert captions_of(copy) == captions_of(source)
    assert copy.fingerprint == source.fingerprint


def test_a_folder_that_nobody_named_is_said(folder: Path) -> None:
    source = open_source(written(folder, "t.token", TOKENS))
    image = source[0].image
    assert isinstance(image, Path)
    assert (f"its images are in {image.parent}" in source.describe()) == (image.parent != folder)


def test_a_list_of_texts_is_refused_with_what_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "texts.txt", "a red bicycle\na cat, asleep\n")
    with pytest.raises(
        DataError,
        match=r"does not name images: its first line is 'a red bicycle'; expected a table .*embed_texts",
    ):
        open_source(path)
    with pytest.raises(DataError, match="does not name images"):
        open_source(path, image_column="pic")
    with pytest.raises(DataError, match=r"no column has a usual name for the image.*diptych\.embed_texts"):
        open_source(written(tmp_path, "texts.csv", "prompt\na red bicycle\n"))


def test_a_pipe_without_spaces_divides_columns_with_quotes_as_usual(tmp_path: Path) -> None:
    written(tmp_path, "a.jpg", "")
    text = 'image|caption\na.jpg|"one | two"\n'
    for delimiter in (None, "|"):
        source = open_source(written(tmp_path, "t.csv", text), delimiter=delimiter)
        assert source[0].captions == ("one | two",)


def test_a_caption_with_a_pipe_leaves_a_comma_the_delimiter(tmp_path: Path) -> None:
    written(tmp_path, "a.jpg", "")
    text = "image,caption | note\na.jpg,one\n"
    example: Example = open_source(written(tmp_path, "t.csv", text), caption_column="caption | note")[0]
    assert example.captions == ("one",)


def test_the_delimiter_is_not_for_annotations(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="annotations have no columns and no delimiter"):
        open_source(written(tmp_path, "a.json", "{}"), delimiter=",")
