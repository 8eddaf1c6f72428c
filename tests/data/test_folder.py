import errno
import inspect
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from diptych.data import Example, open_source
from diptych.data.left_out import TOO_LARGE, LeftOut, left_out_of
from diptych.data.sources import folder as folder_module
from diptych.data.sources.folder import FolderSource, list_folder
from diptych.data.sources.storage import Strings
from diptych.embed.source_rows import SkippedRow, read_row
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


def test_one_stray_caption_file_leaves_the_labels_of_all_images(tmp_path: Path) -> None:
    fill(
        tmp_path, cat__a_jpg="", cat__a_txt="a tabby", cat__b_jpg="", dog__c_jpg="", dog__d_jpg="", top_jpg=""
    )
    source = open_source(tmp_path)
    found = [(example.label, example.captions) for example in read_all(tmp_path)]
    assert found == [(None, ()), ("cat", ("a tabby",)), ("cat", ()), ("dog", ()), ("dog", ())]
    assert "5 images, 1 with captions beside them in 2 class folders" in source.describe()
    assert "without captions: 4 images" in source.describe()
    assert left_out_of(source).remarks == (
        f"{tmp_path}: only 1 of 5 images has a caption file beside it, the others have no caption; the label of each "
        "image is the name of its folder",
    )


def test_class_folders_whose_images_all_have_captions_have_both(tmp_path: Path) -> None:
    fill(tmp_path, cat__a_jpg="", cat__a_txt="a tabby", dog__b_jpg="", dog__b_json='{"caption": "a pug"}')
    assert [(one.label, one.captions) for one in read_all(tmp_path)] == [
        ("cat", ("a tabby",)),
        ("dog", ("a pug",)),
    ]
    assert left_out_of(open_source(tmp_path)).remarks == ()


def test_a_label_in_json_comes_before_the_name_of_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, x__a_jpg="", x__a_json='{"label": "cat"}', x__b_jpg="", x__b_json='{"label": ""}')
    assert [example.label for example in read_all(tmp_path)] == ["cat", "x"]


def test_images_alone_are_a_source(tmp_path: Path) -> None:
    fill(tmp_path, b_jpg="", a_png="")
    assert read_all(tmp_path) == [
        Example("a.png", tmp_path / "a.png"),
        Example("b.jpg", tmp_path / "b.jpg"),
    ]
    assert "without captions or class folders" in open_source(tmp_path).describe()


def test_hidden_files_are_passed_over_and_others_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", orphan_txt="words", notes_md="", more_md="", sub__x_pdf="")
    fill(tmp_path, **{".cache__b_jpg": "", "._a_jpg": ""})
    (tmp_path / "README").touch()
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg"]
    left_out = left_out_of(open_source(tmp_path))
    assert left_out == {
        "hidden": 2,
        "not an image: .md": 2,
        "caption file without an image": 1,
        "not an image: .pdf": 1,
        "not an image: no suffix": 1,
    }
    assert left_out.first("not an image: .md") == ("more.md", "notes.md")
    assert left_out.first("not an image: .pdf") == ("sub/x.pdf",)
    assert "2 (not an image: .md): more.md, notes.md" in open_source(tmp_path).describe()
    assert not any("hidden" in line for line in left_out.warnings())


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.MPO", "a.JFIF", "a.Heic", "a.HEIF"])
def test_every_suffix_of_an_image_is_read_in_any_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert [example.key for example in read_all(tmp_path)] == [name]


def test_without_the_extra_heic_is_left_out_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "READS_HEIC", False)
    fill(tmp_path, IMG_1_HEIC="", IMG_1_MOV="", IMG_2_jpg="", IMG_2_mov="", trip_mp4="", b_heif="")
    source = open_source(tmp_path)
    assert len(source) == 1
    assert left_out_of(source) == {
        "HEIC needs the extra: pip install 'diptych[heic]'": 2,
        "video of a Live Photo: .mov": 2,
        "video: .mp4": 1,
    }


def test_an_empty_folder_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in this folder or below it; images end in \.jpg"):
        open_source(tmp_path)
    fill(tmp_path, a_pdf="", b_pdf="")
    with pytest.raises(DataError, match=r"\(found 2 \(not an image: \.pdf\): a\.pdf, b\.pdf\)"):
        open_source(tmp_path)


def manifest() -> str:
    return json.dumps({"format_version": 2, "current": {}, "check": "0123"})


def test_a_folder_that_holds_an_index_or_a_model_is_passed_over(tmp_path: Path) -> None:
    model = json.dumps({"format_version": 1, "kind": "clip", "sha256": {}})
    fill(
        tmp_path, a_jpg="", i__index_json=manifest(), i__thumbnails__b_jpg="", run__model__diptych_json=model
    )
    fill(
        tmp_path,
        run__model__c_jpg="",
        mine__index_json="{}",
        mine__d_jpg="",
        broken__index_json="{",
        broken__e_jpg="",
    )
    source = open_source(tmp_path)
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg", "broken/e.jpg", "mine/d.jpg"]
    assert left_out_of(source)["folder of a search index"] == 1
    assert left_out_of(source).first("folder of a search index") == ("i/",)
    assert left_out_of(source).first("folder of a model") == ("run/model/",)


def test_an_index_in_the_folder_itself_is_passed_over_and_the_images_are_not(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", index_json=manifest(), thumbnails__b_jpg="", images__c_jpg="")
    (tmp_path / "images-000001.lance").mkdir()
    (tmp_path / "images-000001.lance" / "d.jpg").touch()
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg", "images/c.jpg"]


def test_a_folder_that_cannot_be_listed_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, a_jpg="", **{"lost__b_jpg": "", "z__c_jpg": ""})
    forbid(monkeypatch, tmp_path / "lost")
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg", "z/c.jpg"]
    left_out = left_out_of(open_source(tmp_path))
    assert left_out.first("folder that cannot be listed") == ("lost/",)
    forbid(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"cannot be listed .*; check the path"):
        open_source(tmp_path)


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have a folder refuse to be listed, also to root, who runs the tests in containers."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_files_in_a_folder_that_may_not_be_entered_are_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, a_jpg="")
    source = open_source(tmp_path)

    stat = os.stat

    def refuse(path: Any, **options: Any) -> Any:
        if str(path) == str(tmp_path / "a.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read \(Permission denied\)"):
        source[0]


def test_links_to_themselves_and_pipes_are_left_out_and_said(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="")
    (tmp_path / "x.jpg").symlink_to("x.jpg")
    (tmp_path / "y.jpg").symlink_to("z.jpg")
    (tmp_path / "z.jpg").symlink_to("y.jpg")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(tmp_path)
    assert [example.key for example in read_all(tmp_path)] == ["a.jpg"]
    assert left_out_of(source) == {"link in a circle": 4, "pipe, socket or device": 1}
    assert set(left_out_of(source).first("link in a circle")) <= {"x.jpg", "y.jpg", "z.jpg", "loop/"}


def test_folders_may_lie_deeper_than_calls_may(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    (deep / "a.jpg").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        assert len(list_folder(tmp_path).images) == 1
    finally:
        sys.setrecursionlimit(limit)


def test_images_captions_and_what_is_left_out_are_all_files(tmp_path: Path) -> None:
    fill(
        tmp_path,
        a_jpg="",
        a_png="",
        a_txt="",
        a_json="{}",
        b_txt="",
        c__d_mov="",
        c__e_tar="",
        c__f_jpe="",
        c__g_h="",
    )
    fill(tmp_path, **{".h_jpg": "", "f_stats_json": ""})
    listing = list_folder(tmp_path)
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    assert len(listing.images) + listing.caption_files + listing.left_out.total == files == 11


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    fill(tmp_path, far__cat__a_jpg="", here__b_jpg="")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "far" / "cat")
    (tmp_path / "here" / "around").symlink_to(tmp_path / "here")
    source = open_source(tmp_path / "here")
    assert [source[position].key for position in range(len(source))] == ["b.jpg", "linked/a.jpg"]
    assert left_out_of(source).first("link in a circle") == ("around/",)


def test_a_label_in_json_that_says_nothing_leaves_the_name_of_the_folder(tmp_path: Path) -> None:
    nothing = ['{"label": NaN}', '{"label": null}', '{"label": ""}', '{"label": " "}', "{}"]
    for number, text in enumerate(nothing):
        fill(tmp_path, **{f"red__{number}_jpg": "", f"red__{number}_json": text})
    source = open_source(tmp_path)
    assert [source[position].label for position in range(len(nothing))] == ["red"] * len(nothing)


def test_an_image_whose_caption_file_is_bad_is_named_itself(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", a_json="{", b_jpg="", b_json="{}")
    row = read_row(open_source(tmp_path), 0)
    assert isinstance(row, SkippedRow)
    assert row.uri == str(tmp_path / "a.jpg")


def test_an_image_that_went_away_is_counted_by_its_path(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", b_jpg="")
    source = open_source(tmp_path)
    (tmp_path / "a.jpg").unlink()
    row = read_row(source, 0)
    assert isinstance(row, SkippedRow)
    assert (row.uri, row.reason) == (str(tmp_path / "a.jpg"), "missing image")


def test_an_image_that_went_away_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, a_jpg="", b_jpg="", b_txt="b")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: this image was there when the folder was listed"):
        source[0]
    with pytest.raises(DataError, match=r"b\.txt: this caption file cannot be read"):
        source[1]
    with pytest.raises(DataError, match=r"dangling\.png"):
        source[2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", "café".encode("latin-1"), r"a\.txt: not UTF-8 text \(byte 0xe9 at 3\)"),
        ("a.json", b'["a"]', r"a\.json: is a JSON list; expected one object"),
        ("a.json", b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", r"a\.json: JSON nested more than 100 deep"),
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


def test_a_warning_of_images_that_are_too_large_names_the_option() -> None:
    left_out = LeftOut()
    left_out.add(TOO_LARGE, "huge.png")
    assert left_out.warnings() == [
        "left out 1 (image too large): huge.png; --max-pixels N decodes images of more pixels"
    ]
    assert left_out.lines() == ["1 (image too large): huge.png"]


def test_one_class_folder_is_not_several(tmp_path: Path) -> None:
    fill(tmp_path, DCIM__1_png="")
    assert open_source(tmp_path).describe().endswith(": 1 image in 1 class folder")
