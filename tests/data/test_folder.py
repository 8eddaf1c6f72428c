import json
import os
import pickle
from pathlib import Path

import pytest

from diptych.data import Example, open_source
from diptych.data.folder import FolderSource, list_folder
from diptych.data.storage import Strings
from diptych.errors import DataError


def fill(folder: Path, **files: str) -> Path:
    """Write files; `__` in a name stands for a slash, and the last `_` for the dot of the suffix."""
    for name, text in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def read_all(folder: Path) -> list[Example]:
    source = open_source(folder)
    return [source[position] for position in range(len(source))]


def test_captions_beside_the_images_in_each_form(tmp_path: Path) -> None:
    record = {"captions": ["a dog"], "tags": ["pet"], "label": "dog", "author": "x"}
    fill(
        tmp_path,
        a_jpg="",
        a_txt="\ufeffa cat\n\n a tabby \n",
        b_png="",
        b_json=json.dumps(record),
        c_webp="",
        c_caption="c",
    )
    first, second, third = read_all(tmp_path)
    assert first == Example("a.jpg", tmp_path / "a.jpg", ("a cat", "a tabby"))
    assert second == Example(
        "b.png", tmp_path / "b.png", ("a dog",), tags=("pet",), label="dog", metadata={"author": "x"}
    )
    assert third.captions == ("c",)


def test_capitals_in_suffixes_and_dots_in_names_make_no_difference(tmp_path: Path) -> None:
    (tmp_path / "IMG.2020.JPG").touch()
    (tmp_path / "IMG.2020.TXT").write_text("a boat")
    (example,) = read_all(tmp_path)
    assert (example.key, example.captions) == ("IMG.2020.JPG", ("a boat",))


def test_folders_are_classes_when_there_are_no_captions(tmp_path: Path) -> None:
    fill(tmp_path, train__cat__b_jpg="", train__cat__a_jpg="", train__dog__a_jpg="", top_jpg="")
    found = [(example.key, example.label, example.captions) for example in read_all(tmp_path)]
    assert found == [
        ("top.jpg", None, ()),
        ("train/cat/a.jpg", "cat", ()),
        ("train/cat/b.jpg", "cat", ()),
        ("train/dog/a.jpg", "dog", ()),
    ]
    assert "4 images in 2 class folders" in open_source(tmp_path).describe()


def test_folders_are_no_classes_beside_captions(tmp_path: Path) -> None:
    fill(tmp_path, holiday__a_jpg="", holiday__a_txt="a beach", work__b_jpg="")
    first, second = read_all(tmp_path)
    assert (first.label, first.captions) == (None, ("a beach",))
    assert (second.label, second.captions) == (None, ())
    text = open_source(tmp_path).describe()
    assert "2 images, 1 with captions beside them" in text
    assert "without captions: 1 images" in text


def test_images_alone_are_a_source(tmp_path: Path) -> None:
    fill(tmp_path, b_jpg="", a_png="")
    assert read_all(tmp_path) == [
        Example("a.png", tmp_path / "a.png"),
        Example("b.jpg", tmp_path / "b.jpg"),
    ]
    assert "without captions or class folders" in open_source(tmp_path).describe()


def test_hidden_files_are_passed_over_and_others_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", orphan_txt="words", notes_md="", more_md="", x_heic="")
    fill(tmp_path, **{".cache__b_jpg": "", "._a_jpg": ""})
    (tmp_path / "README").touch()
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg"]
    text = open_source(tmp_path).describe()
    assert "caption files of 1 names that have no image" in text
    assert "not used: 2 .md, 1 (no suffix), 1 .heic" in text


def test_an_empty_folder_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in this folder or below it; images end in \.jpg"):
        open_source(tmp_path)
    fill(tmp_path, a_pdf="", b_pdf="")
    with pytest.raises(DataError, match=r"\(found 2 \.pdf\)"):
        open_source(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    fill(tmp_path, far__cat__a_jpg="", here__b_jpg="")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "far" / "cat")
    (tmp_path / "here" / "around").symlink_to(tmp_path / "here")
    assert [example.key for example in read_all(tmp_path / "here")] == ["b.jpg", "linked/a.jpg"]


def test_an_image_that_went_away_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", b_jpg="", b_txt="b")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: this image was there when the folder was listed"):
        source[0]
    with pytest.raises(DataError, match=r"b\.txt: cannot be read"):
        source[1]
    with pytest.raises(DataError, match=r"dangling\.png"):
        source[2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", "café".encode("latin-1"), r"a\.txt: not UTF-8 text \(byte 0xe9 at 3\)"),
        ("a.json", b'["a"]', r"a\.json: a JSON list; expected one object"),
        ("a.json", b'{"tags": [1]}', r"a\.json: 'tags' is \[1\]"),
    ],
)
def test_a_bad_caption_file_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    fill(tmp_path, a_jpg="")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path)


def test_names_that_are_not_unicode_are_opened_as_they_are(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"image")
    (example,) = read_all(tmp_path)
    assert isinstance(example.image, Path)
    assert example.image.read_bytes() == b"image"


def test_the_fingerprint_follows_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", b_jpg="")
    first = open_source(tmp_path).fingerprint
    assert open_source(tmp_path).fingerprint == first
    fill(tmp_path, a_txt="words")
    second = open_source(tmp_path).fingerprint
    fill(tmp_path, c_jpg="")
    assert len({first, second, open_source(tmp_path).fingerprint}) == 3


def test_a_source_travels_to_another_process(tmp_path: Path) -> None:
    fill(tmp_path, x__a_jpg="", y__b_jpg="")
    source = open_source(tmp_path)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[0], copy[1]] == [source[0], source[1]]
    for position in (-1, 2):
        with pytest.raises(IndexError):
            copy[position]


def test_a_listing_of_many_files_stays_small(tmp_path: Path) -> None:
    names = [f"folder/{number:09}.jpg" for number in range(100_000)]
    strings = Strings(names)
    assert list(strings) == names
    assert strings[-1] == names[-1]
    assert len(pickle.dumps(strings)) < 100_000 * (len(names[0]) + 9)


def test_a_listing_is_that_of_a_walk(tmp_path: Path) -> None:
    fill(tmp_path, b__c__1_jpg="", b__2_jpg="", a__3_jpg="", **{"b-x__4_jpg": ""}, z_jpg="")
    walked = []
    for folder, folders, files in os.walk(tmp_path):
        folders.sort()
        walked += [(Path(folder) / name).relative_to(tmp_path).as_posix() for name in sorted(files)]
    listing = list_folder(tmp_path)
    assert list(listing.images) == walked
    assert len(FolderSource(tmp_path, listing)) == 5
