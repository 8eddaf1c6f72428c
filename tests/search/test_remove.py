"""Pictures taken out of an index, and that nothing of them is left when that was asked for."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError, SearchIndexError
from diptych.search.building.build import refresh
from diptych.search.building.removal import filter_for, remove
from diptych.search.image_index import Index
from diptych.search.integrity import verify
from diptych.search.manifest import read_manifest
from diptych.search.stores.connect import connect
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.protocol import Database
from tests.search.fake_encoder import FakeEncoder, Folder, preview_of, vector_of
from tests.search.index_places import PLACES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("apple", "bread", "private-face", "private-house"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{name}.png").write_bytes(name.encode())
    return tmp_path / "photos"


@pytest.fixture(params=PLACES)
def database(
    request: pytest.FixtureRequest, opened: Callable[[str], Database], photos: Path
) -> Iterator[Database]:
    database = opened(request.param)
    refresh(database, Folder(photos), FakeEncoder())
    yield database
    database.close()


def names(place: Path | Database) -> list[str]:
    return sorted(Path(item.uri).stem for item in Index(place, freshness=0).items())


@pytest.mark.parametrize("purge", [False, True])
def test_removed_pictures_and_their_thumbnails_are_gone(
    database: Database, photos: Path, purge: bool
) -> None:
    chosen = parse(f'uri starts "{photos}/private"')
    assert remove(database, chosen, purge=purge) == 2
    assert names(database) == ["apple", "bread"]
    assert len(list(database.thumbnail_names())) == 2
    verify(database)
    index = Index(database)
    (best,) = index.search(vector_of(b"apple"), count=1)
    assert index.thumbnail(best.item.id) == preview_of(b"apple").thumbnail
    manifest = read_manifest(database)
    assert manifest is not None
    assert not manifest.writing


def test_after_a_purge_nothing_is_left_in_any_file(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    refresh(place, Folder(photos), FakeEncoder(), commit_rows=1)
    # Written twice, deleted once and added again: older versions have it too.
    (photos / "private-face.png").write_bytes(b"private-face")
    os.utime(photos / "private-face.png", ns=(1, 1))
    refresh(place, Folder(photos), FakeEncoder())
    face = vector_of(b"private-face").astype(np.float16).tobytes()
    traces = [face, b"private-face", b"private-house", preview_of(b"private-face").thumbnail]
    assert all(found_in(place, trace) for trace in traces), "the search must see what is there"
    remove(place, parse("uri contains private"))
    assert any(found_in(place, trace) for trace in traces), (
        "the broken twin: without --purge it is still there"
    )
    remove(place, parse("uri contains private"), purge=True)
    assert [trace for trace in traces if found_in(place, trace)] == []
    assert names(place) == ["apple", "bread"]
    assert found_in(place, vector_of(b"apple").astype(np.float16).tobytes())


def found_in(place: Path, trace: bytes) -> list[str]:
    """Files whose bytes, or whose name, have `trace` in them."""
    files = [file for file in place.rglob("*") if file.is_file()]
    return [file.name for file in files if trace in file.read_bytes() or trace in os.fsencode(file.name)]


def test_a_purge_reaches_a_table_that_is_being_filled(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    refresh(place, Folder(photos), FakeEncoder())

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    other = FakeEncoder(name="other", fingerprint="e" * 64)
    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), other, rebuild=True, progress=stop)
    remove(place, parse("uri contains private"), purge=True)
    assert found_in(place, b"private-face") == []
    (photos / "private-face.png").unlink()
    (photos / "private-house.png").unlink()
    refresh(place, Folder(photos), other, rebuild=True)
    assert names(place) == ["apple", "bread"]
    Index(place).require(other)


def test_a_source_that_has_no_picture_left_is_forgotten(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.png").write_bytes(b"xylophone")
    refresh(place, Folder(photos), FakeEncoder())
    refresh(place, Folder(tmp_path / "secret"), FakeEncoder())
    remove(place, filter_for(str(tmp_path / "secret")), purge=True)
    assert found_in(place, b"secret") == []
    manifest = read_manifest(connect(place))
    assert manifest is not None
    assert set(manifest.skipped) == {str(photos)}


def test_a_reader_goes_on_while_a_purge_replaces_its_table(photos: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "index", Folder(photos), FakeEncoder())
    reader = Index(tmp_path / "index", freshness=3600)
    remove(tmp_path / "index", parse("uri contains private"), purge=True)
    assert sorted(Path(item.uri).stem for item in reader.items()) == ["apple", "bread"]


def test_what_a_person_names_is_found(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "index"
    (tmp_path / "photos2").mkdir()
    (tmp_path / "photos2" / "z.png").write_bytes(b"zebra")
    refresh(place, Folder(photos), FakeEncoder())
    refresh(place, Folder(tmp_path / "photos2"), FakeEncoder())
    index = Index(place)
    monkeypatch.chdir(tmp_path)
    apple = next(index.items("uri contains apple"))
    for what, count in (
        (apple.id, 1),
        (apple.uri, 1),
        ("photos/apple.png", 1),
        ("photos", 4),
        ("photos/", 4),
        (str(tmp_path), 5),
        ("photo", 0),
        ("photos/app", 0),
    ):
        assert index.count(filter_for(what)) == count, what


def test_nothing_to_remove_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="no index here"):
        remove(tmp_path / "index", parse("width = 1"))
    assert not (tmp_path / "index").exists()
    refresh(tmp_path / "index", Folder(photos), FakeEncoder())
    with pytest.raises(DataError, match="nothing was removed"):
        remove(tmp_path / "index", parse("width = 12345"))
