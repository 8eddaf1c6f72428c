import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import Example, Source, open_source
from diptych.data.subsets.same_images import image_id, neighbouring_rows, run_length, same_images
from tests.data.tar_files import png, write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


def slow(source: Source, positions: Sequence[int]) -> list[int]:
    """The definition, row against row."""
    images = []
    for position in positions:
        image = source[position].image
        images.append(image if isinstance(image, bytes) else image.read_bytes())
    return [images.index(image) for image in images]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, shade in (("a", 1), ("b", 2), ("copy of a", 1), ("c", 3)):
        (tmp_path / f"{name}.png").write_bytes(png(shade))
    (tmp_path / "longer.png").write_bytes(png(1) + b"\0")
    return tmp_path


def table(folder: Path, names: Sequence[str]) -> Source:
    lines = [f'"{name}",{number}' for number, name in enumerate(names)]
    (folder / "t.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")
    return open_source(folder / "t.csv")


def test_rows_with_one_file_or_equal_bytes_show_the_same_image(folder: Path) -> None:
    names = ["c.png", "a.png", "b.png", "a.png", "copy of a.png", "./b.png", "longer.png", "copy of a.png"]
    source = table(folder, names)
    assert same_images(source).tolist() == [0, 1, 2, 1, 1, 2, 6, 1]
    assert same_images(source).dtype == np.int64
    assert same_images(source).tolist() == slow(source, range(len(names)))


def test_numbers_count_within_the_positions_that_were_asked_for(folder: Path) -> None:
    source = table(folder, ["c.png", "a.png", "b.png", "a.png", "copy of a.png"])
    assert same_images(source, [4, 2, 1]).tolist() == [0, 1, 0]
    assert same_images(source, iter([3, 3])).tolist() == [0, 0]
    assert same_images(source, []).tolist() == []


def test_links_lead_to_the_same_image(folder: Path) -> None:
    os.link(folder / "a.png", folder / "hard.png")
    (folder / "soft.png").symlink_to("a.png")
    assert same_images(table(folder, ["b.png", "a.png", "hard.png", "soft.png"])).tolist() == [0, 1, 1, 1]


def test_files_are_read_only_where_another_has_their_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def read_file(path: Path) -> bytes:
        read.append(path.name)
        return path.read_bytes()

    monkeypatch.setattr("diptych.data.subsets.same_images.read_file", read_file)
    (folder / "b.png").write_bytes(bytes(500))
    source = table(folder, ["longer.png", "b.png", "b.png", "b.png", "longer.png"])
    assert same_images(source).tolist() == [0, 1, 1, 1, 0]
    assert read == []
    source = table(folder, ["a.png", "b.png", "a.png", "copy of a.png"])
    assert same_images(source).tolist() == [0, 1, 0, 0]
    assert sorted(read) == ["a.png", "copy of a.png"]  # each file once, however many rows name it


def test_rows_that_cannot_be_read_are_images_of_their_own(folder: Path) -> None:
    source = table(folder, ["a.png", "gone.png", "a.png", "gone.png"])
    assert same_images(source).tolist() == [0, 1, 0, 3]


def test_empty_files_are_not_one_image_because_their_bytes_are_equal(folder: Path) -> None:
    for name in ("empty.png", "empty too.png"):
        (folder / name).touch()
    source = table(folder, ["empty.png", "a.png", "empty too.png", "empty.png", "copy of a.png"])
    assert same_images(source).tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_images_inside_shards_and_parquet_are_told_by_their_bytes(tmp_path: Path, workers: int) -> None:
    shades = [3, 1, 2, 1, 3, 3]
    members = [(f"{number}.png", png(shade)) for number, shade in enumerate(shades)]
    cells = [{"bytes": png(shade), "path": "one name for all.png"} for shade in shades]
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "t.parquet")
    for source in (
        open_source(write_tar(tmp_path / "a.tar", members)),
        open_source(tmp_path / "t.parquet"),
    ):
        assert same_images(source, workers=workers).tolist() == [0, 1, 2, 1, 0, 0]


def test_a_file_equals_an_image_inside_the_source(folder: Path) -> None:
    class Mixed:
        name = fingerprint = "mixed"
        images = (folder / "a.png", png(2), png(1), folder / "b.png", folder / "longer.png")

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, position: int, /) -> Example:
            return Example(str(position), self.images[position])

        def describe(self) -> str:
            return self.name

    assert same_images(Mixed()).tolist() == [0, 1, 0, 1, 4]


def test_an_image_id_is_that_of_its_bytes(folder: Path) -> None:
    assert image_id(folder / "a.png") == image_id(folder / "copy of a.png") == image_id(png(1))
    assert image_id(png(1)) != image_id(png(2))


def test_rows_to_look_at_are_evenly_spread_runs() -> None:
    assert neighbouring_rows(7, 7) == neighbouring_rows(7, 10) == list(range(7))
    assert neighbouring_rows(100, 3) == [0, 33, 66]
    rows = neighbouring_rows(1_000, 200)
    runs = [rows[start : start + 14] for start in range(0, len(rows), 14)]
    assert run_length(200) == len(runs) == 14
    assert all(run == list(range(run[0], run[0] + 14)) for run in runs)
    assert (rows[0], rows[14], len(set(rows))) == (0, 71, 196)
    assert len(set(neighbouring_rows(101, 100))) == 100
