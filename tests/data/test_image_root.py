import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import open_source
from diptych.data.left_out import left_out_of
from diptych.data.subsets.mixture import open_mixture
from diptych.errors import DataError, SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in `pics/b`, and tables in `tables` that name them."""
    (tmp_path / "pics" / "b").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "pics" / "b" / name).touch()
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [{"image": "b/1.jpg", "caption": "one"}, {"image": "b/2.jpg", "caption": "two"}]
    (tables / "t.csv").write_text("image,caption\nb/1.jpg,one\nb/2.jpg,two\n")
    (tables / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tables / "t.parquet")
    saved = tables / "saved"
    saved.mkdir()
    table = pyarrow.Table.from_pylist(rows)
    with (
        pyarrow.OSFile(str(saved / "data.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (saved / "dataset_info.json").write_text("{}")
    return tmp_path


TABLES = ["t.csv", "t.jsonl", "t.parquet", "saved"]


@pytest.mark.parametrize("name", TABLES)
def test_images_are_relative_to_the_root(folder: Path, name: str) -> None:
    for root in (folder / "pics", str(folder / "pics")):
        source = open_source(folder / "tables" / name, image_root=root)
        assert [source[row].image for row in range(2)] == [folder / "pics" / "b" / f"{n}.jpg" for n in (1, 2)]
        assert "its images are in" not in source.describe()


@pytest.mark.parametrize("name", TABLES)
def test_images_that_are_nowhere_are_an_error_with_the_first_name_and_the_places(
    folder: Path, name: str
) -> None:
    with pytest.raises(DataError) as caught:
        open_source(folder / "tables" / name)
    message = str(caught.value)
    assert f"{Path('b') / '1.jpg'}; none of the 2 images that were looked for is in" in message
    assert "or in a folder such as images/" in message
    assert "--image-root" in message


@pytest.mark.parametrize("name", TABLES)
def test_images_in_a_usual_folder_are_found_and_that_is_said(folder: Path, name: str) -> None:
    images = folder / "tables" / "images"
    (folder / "pics").rename(images)
    source = open_source(folder / "tables" / name)
    assert source[1].image == images / "b" / "2.jpg"
    assert f"its images are in {images}" in source.describe()
    assert left_out_of(source).remarks == (
        f"{folder / 'tables' / name}: its images are in {images}; --image-root or image_root names another folder",
    )


def test_two_usual_folders_with_the_names_are_an_error(folder: Path) -> None:
    (folder / "pics").rename(folder / "images")
    other = folder / "tables" / "train2017" / "b"
    other.mkdir(parents=True)
    (other / "2.jpg").touch()
    with pytest.raises(
        DataError, match=r"occur in .*train2017 and in .*images; choose one of them with image_root"
    ):
        open_source(folder / "tables" / "t.csv")


def test_a_root_that_does_not_exist_is_an_error(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"image_root \(--image-root\) nowhere: no such folder"):
        open_source(folder / "tables" / "t.csv", image_root="nowhere")


def test_a_root_without_the_images_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: no such image: .*tables.*1\.jpg"):
        open_source(folder / "tables" / "t.csv", image_root=folder / "tables")


def test_a_root_is_for_tables(folder: Path) -> None:
    for place in (str(folder / "pics"), "sample:test", "scenes:test"):
        with pytest.raises(SettingsError, match="no image root"):
            open_source(place, image_root=folder)


def test_one_image_that_is_missing_changes_no_root(folder: Path) -> None:
    table = folder / "pics" / "t.csv"
    table.write_text("image,caption\n" + "no.jpg,x\n" * 500 + "b/1.jpg,one\n" * 20)
    source = open_source(table)
    assert source[500].captions == ("one",)
    with pytest.raises(DataError, match=r"line 2: no such image"):
        source[0]


def test_options_reach_the_tables_of_a_mixture_that_take_them(folder: Path) -> None:
    (folder / "tables" / "t.csv").write_text("image|caption\nb/1.jpg|one\n")
    images = [{"id": 1, "file_name": "b/1.jpg"}]
    annotations = {"images": images, "annotations": [{"image_id": 1, "caption": "three"}]}
    (folder / "tables" / "c.json").write_text(json.dumps(annotations))
    names = ("t.csv", "t.jsonl", "c.json")
    times = {str(folder / "tables" / name): 1.0 for name in names} | {"sample:test": 1.0}
    root = str(folder / "pics")
    mixture = open_mixture(times, delimiter="|", caption_column="caption", image_root=root)
    assert [mixture[row].captions for row in range(4)] == [("one",), ("one",), ("two",), ("three",)]
