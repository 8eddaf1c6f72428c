"""Folders that overlap, their spellings, and sources that have vanished."""

import os
import shutil
from itertools import permutations
from pathlib import Path

import pytest

from diptych.data.example import Example
from diptych.data.sources.folder import FolderSource, list_folder
from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.search.building.build import Summary, refresh
from diptych.search.building.origin import MissingSource
from diptych.search.building.vanished import LostImagesError
from diptych.search.image_index import Index
from tests.memory_store import MemoryDatabase
from tests.search.fake_encoder import FakeEncoder


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(f"{folder.name} {name}".encode())
    return folder


def folder_source(folder: Path | str) -> Source:
    return FolderSource(Path(folder), list_folder(Path(folder)))


def go(
    database: MemoryDatabase, folder: Path | str, *, rebuild: bool = False, force: bool = False
) -> Summary:
    return refresh(database, folder_source(folder), FakeEncoder(), rebuild=rebuild, force=force)


def uris(database: MemoryDatabase) -> list[str]:
    return sorted(item.uri for item in Index(database, freshness=0).items())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write(folder, "a", "b")
    write(folder / "2024", "c", "d")
    write(folder / "2024" / "june", "e", "f")
    return folder


FOLDERS = ("", "2024", "2024/june")


@pytest.mark.parametrize("order", list(permutations(FOLDERS)))
@pytest.mark.parametrize("last", FOLDERS)
def test_deleted_files_go_whatever_order_folders_are_indexed_in(
    photos: Path, order: tuple[str, ...], last: str
) -> None:
    database = MemoryDatabase()
    for name in order:
        go(database, photos / name)
    assert len(uris(database)) == 6
    (photos / "2024" / "june" / "e.png").unlink()
    summary = go(database, photos / last)
    assert summary.removed == 1
    assert uris(database) == sorted(map(str, photos.rglob("*.png")))


def test_a_refresh_of_the_inner_folder_leaves_the_rest_alone(photos: Path) -> None:
    database = MemoryDatabase()
    go(database, photos)
    (photos / "a.png").unlink()
    assert go(database, photos / "2024").removed == 0
    assert len(uris(database)) == 6
    assert go(database, photos).removed == 1


def test_folders_in_turn_are_settled_after_one_round(photos: Path) -> None:
    database = MemoryDatabase()
    for name in FOLDERS * 2:
        go(database, photos / name)
    sources = {item.source for item in Index(database, freshness=0).items()}
    assert sources == {str(photos)}


def test_a_hidden_folder_that_was_indexed_by_itself_stays(photos: Path) -> None:
    database = MemoryDatabase()
    write(photos / ".hidden", "x")
    go(database, photos / ".hidden")
    go(database, photos)
    assert len(uris(database)) == 7
    (photos / ".hidden" / "x.png").unlink()
    assert go(database, photos).removed == 1


def test_every_spelling_of_a_folder_is_the_same_source(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = MemoryDatabase()
    go(database, photos)
    before = uris(database)
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "into").symlink_to(photos / "2024")
    monkeypatch.chdir(tmp_path)
    for spelling in ("photos", "photos/", "./photos/../photos", "link", "link/", "into", "link/2024"):
        summary = go(database, spelling)
        assert (summary.added, summary.removed, uris(database)) == (0, 0, before), spelling
    (photos / "2024" / "c.png").unlink()
    write(photos / "2024", "new")
    summary = go(database, "into")
    assert (summary.added, summary.removed) == (1, 1)
    assert uris(database) == sorted(map(str, photos.rglob("*.png")))


def test_the_spelling_that_came_first_stays(photos: Path, tmp_path: Path) -> None:
    database = MemoryDatabase()
    (tmp_path / "link").symlink_to(photos)
    go(database, tmp_path / "link" / "2024")
    summary = go(database, photos)
    assert (summary.added, summary.unchanged) == (2, 4)
    assert len(uris(database)) == 6
    assert go(database, tmp_path / "link").unchanged == 6
    (photos / "2024" / "c.png").unlink()
    assert go(database, photos).removed == 1


def test_a_source_that_lost_most_of_its_files_keeps_them_in_the_index(tmp_path: Path) -> None:
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", *(f"{number:02}" for number in range(30)))
    go(database, folder)
    for number in range(20):
        (folder / f"{number:02}.png").unlink()
    write(folder, "new")
    with pytest.raises(LostImagesError) as caught:
        go(database, folder)
    assert (caught.value.count, caught.value.total) == (20, 30)
    assert caught.value.first == tuple(str(folder / f"{number:02}.png") for number in range(5))
    assert "20 of its 30 images" in str(caught.value)
    assert "--force" in str(caught.value)
    assert len(uris(database)) == 31, "the rest is done"
    summary = go(database, folder, force=True)
    assert (summary.removed, summary.total) == (20, 11)


@pytest.mark.parametrize(("had", "left", "removed"), [(30, 15, 15), (19, 10, 9), (12, 3, 9)])
def test_up_to_half_or_up_to_nine_go_without_a_question(
    tmp_path: Path, had: int, left: int, removed: int
) -> None:
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", *(f"{number:02}" for number in range(had)))
    go(database, folder)
    for number in range(left, had):
        (folder / f"{number:02}.png").unlink()
    assert go(database, folder).removed == removed


def test_files_that_were_moved_are_not_lost(tmp_path: Path) -> None:
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", *(f"{number:02}" for number in range(30)))
    go(database, folder)
    (folder / "2024").mkdir()
    for file in folder.glob("*.png"):
        file.rename(folder / "2024" / file.name)
    summary = go(database, folder)
    assert (summary.moved, summary.total) == (30, 30)


def test_pictures_that_the_source_passes_over_are_not_lost(tmp_path: Path) -> None:
    """An index that had swallowed its own thumbnails gives them up."""
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", "a")
    swallowed = write(folder / "index", *(f"{number:02}" for number in range(30)))
    go(database, folder)
    swallowed.rename(folder / ".index")  # as the folder's walk sees an index
    os.symlink(folder / ".index", folder / "index")

    everything = folder_source(folder)

    def is_swallowed(row: int) -> bool:
        image = everything[row].image
        assert isinstance(image, Path)
        return "index" in image.parent.name

    class Without:
        name, fingerprint = str(folder), "0" * 64

        def __init__(self) -> None:
            self._rows = [row for row in range(len(everything)) if not is_swallowed(row)]

        def __len__(self) -> int:
            return len(self._rows)

        def __getitem__(self, position: int) -> Example:
            return everything[self._rows[position]]

        def describe(self) -> str:
            return self.name

    summary = refresh(database, Without(), FakeEncoder())
    assert (summary.removed, summary.total) == (30, 1)


def test_an_inner_folder_that_is_not_mounted_is_kept_too(photos: Path) -> None:
    database = MemoryDatabase()
    write(photos / "usb", *(f"{number:02}" for number in range(12)))
    go(database, photos / "usb")
    shutil.rmtree(photos / "usb")
    with pytest.raises(LostImagesError, match="12 of its 12"):
        go(database, photos)
    assert len(uris(database)) == 18


def test_a_source_that_is_gone_empties_nothing_without_force(tmp_path: Path) -> None:
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", "a", "b")
    go(database, folder)
    with pytest.raises(DataError, match="no images"):
        refresh(database, MissingSource(str(folder)), FakeEncoder())
    assert len(uris(database)) == 2
    summary = refresh(database, MissingSource(str(folder)), FakeEncoder(), force=True)
    assert (summary.removed, summary.total) == (2, 0)
    with pytest.raises(DataError):
        refresh(database, MissingSource(str(tmp_path / "never")), FakeEncoder(), force=True)


def test_a_rebuild_of_what_is_left_is_refused_as_well(tmp_path: Path) -> None:
    database = MemoryDatabase()
    folder = write(tmp_path / "photos", *(f"{number:02}" for number in range(30)))
    go(database, folder)
    for number in range(20):
        (folder / f"{number:02}.png").unlink()
    with pytest.raises(LostImagesError, match="20 of its 30"):
        go(database, folder, rebuild=True)
    assert len(uris(database)) == 30
    assert go(database, folder, rebuild=True, force=True).total == 10
