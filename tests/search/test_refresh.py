"""What a refresh embeds, keeps, moves and removes."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import Example, Source, open_source
from diptych.data.sources.row_keys import content_key
from diptych.errors import DataError, SearchIndexError
from diptych.search.building.build import Summary, refresh
from diptych.search.image_index import Index
from diptych.search.integrity import verify
from diptych.search.manifest import read_manifest, write_manifest
from diptych.search.stores.connect import connect
from diptych.search.stores.image_rows import item_id
from diptych.search.stores.protocol import Database
from tests.memory_store import MemoryDatabase
from tests.search.fake_encoder import DAMAGED, Contained, FakeEncoder, Folder, preview_of, vector_of

Place: TypeAlias = Path | Database


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    return folder


def counts(summary: Summary) -> dict[str, int]:
    names = ("added", "updated", "moved", "unchanged", "removed", "repeated", "total")
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def contents(place: Place) -> dict[str, str | None]:
    """File name to caption of every picture, after a check that each vector is that of the file's bytes."""
    index = Index(place, freshness=0)
    verify(place)
    found = {}
    for item in index.items():
        (best,) = index.search(vector_of(Path(item.uri).read_bytes()), count=1)
        assert best.item == item
        assert best.score == pytest.approx(1, abs=2e-3)
        assert index.thumbnail(item.id) == preview_of(Path(item.uri).read_bytes()).thumbnail
        found[Path(item.uri).name] = item.caption
    assert len(index) == len(found)
    assert len(set(index.database.thumbnail_names())) == len(found)
    return found


def leave_writing(database: Database) -> None:
    """Mark an index as a writer that was killed leaves it."""
    manifest = read_manifest(database)
    assert manifest is not None
    write_manifest(database, dataclasses.replace(manifest, writing=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", a=b"apple", b=b"bread", c=b"cat", d=b"dog")


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return MemoryDatabase() if request.param == "memory" else tmp_path / "index"


def where(place: Place) -> str:
    """How messages call it."""
    return place.place if isinstance(place, MemoryDatabase) else str(place)


def test_a_new_index_holds_every_picture(photos: Path, place: Place) -> None:
    done: list[int] = []
    summary = refresh(place, Folder(photos), FakeEncoder(), progress=done.append)
    assert counts(summary) == {"added": 4, "total": 4}
    assert contents(place) == {"a.png": "a", "b.png": "b", "c.png": "c", "d.png": "d"}
    assert sum(done) == 4


def everything(place: Place) -> object:
    if isinstance(place, MemoryDatabase):
        return place.read_manifest(), dict(place._tables["images-000001"]._rows), dict(place._thumbnails)
    assert isinstance(place, Path)
    return {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}


def test_a_second_refresh_embeds_nothing_and_writes_nothing(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = everything(place)
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"unchanged": 4, "total": 4}
    assert encoder.embedded == []
    assert everything(place) == before


def test_only_new_and_changed_files_are_embedded(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    write(photos, b=b"butter", e=b"egg")
    (photos / "d.png").unlink()
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert counts(summary) == {"added": 1, "updated": 1, "unchanged": 2, "removed": 1, "total": 4}
    assert encoder.embedded == ["b.png", "e.png"]
    assert set(contents(place)) == {"a.png", "b.png", "c.png", "e.png"}


def test_a_file_changed_to_the_same_size_is_embedded_again(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    write(photos, c=b"cow")
    os.utime(photos / "c.png", ns=(1, 1))
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"updated": 1, "unchanged": 3, "total": 4}
    assert encoder.embedded == ["c.png"]


def test_a_touched_file_is_not_embedded_again(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    os.utime(photos / "c.png", ns=(1, 1))
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"unchanged": 4, "total": 4}
    assert encoder.embedded == []
    assert [item.mtime_ns for item in Index(place).items()].count(1) == 1


def test_moved_and_copied_files_are_not_embedded_again(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    (photos / "a.png").rename(photos / "z.png")
    write(photos, copy=b"bread")
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert counts(summary) == {"added": 1, "moved": 1, "unchanged": 3, "total": 5}
    assert encoder.embedded == []
    assert set(contents_of(place)) == {"b.png", "c.png", "copy.png", "d.png", "z.png"}


def contents_of(place: Place) -> list[str]:
    return sorted(Path(item.uri).name for item in Index(place).items())


def test_the_id_of_a_picture_stays_when_its_bytes_change(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = {item.uri: item.id for item in Index(place).items()}
    write(photos, a=b"almond")
    refresh(place, Folder(photos), FakeEncoder())
    assert {item.uri: item.id for item in Index(place).items()} == before
    assert len(set(before.values())) == 4


def test_a_new_caption_is_taken_over_without_embedding(tmp_path: Path, place: Place) -> None:
    photos = write(tmp_path / "photos", a=b"apple")
    refresh(place, Folder(photos), FakeEncoder())

    class Renamed(Folder):
        def __getitem__(self, position: int) -> Example:
            example = super().__getitem__(position)
            return type(example)(key=example.key, image=example.image, captions=("an apple",))

    encoder = FakeEncoder()
    refresh(place, Renamed(photos), encoder)
    assert contents(place) == {"a.png": "an apple"}
    assert encoder.embedded == []


def test_skipped_pictures_are_listed_with_their_place_and_recorded(photos: Path, place: Place) -> None:
    write(photos, b=DAMAGED)
    summary = refresh(place, Folder(photos), FakeEncoder())
    assert counts(summary) == {"added": 3, "total": 3}
    assert [(row.uri, row.reason) for row in summary.skipped] == [(str(photos / "b.png"), "unreadable image")]
    assert Index(place).manifest.skipped == {str(photos): {"unreadable image": 1}}


def test_pictures_inside_something_else_are_known_by_their_bytes(tmp_path: Path, place: Place) -> None:
    name = str(tmp_path / "shard.tar")
    refresh(place, Contained(name, {"x": b"apple", "y": b"bread"}), FakeEncoder())
    encoder = FakeEncoder()
    summary = refresh(place, Contained(name, {"x": b"apple", "y": b"butter", "z": b"cat"}), encoder)
    assert counts(summary) == {"added": 1, "updated": 1, "unchanged": 1, "total": 3}
    assert encoder.embedded == ["y", "z"]
    assert {item.uri for item in Index(place).items()} == {f"{name}#x", f"{name}#y", f"{name}#z"}


def test_pictures_of_another_source_stay(photos: Path, tmp_path: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    more = write(tmp_path / "more", x=b"xylophone")
    assert counts(refresh(place, Folder(more), FakeEncoder())) == {"added": 1, "total": 5}
    (photos / "a.png").unlink()
    summary = refresh(place, Folder(photos), FakeEncoder())
    assert counts(summary) == {"unchanged": 3, "removed": 1, "total": 4}
    assert set(contents(place)) == {"b.png", "c.png", "d.png", "x.png"}


def test_a_picture_that_is_listed_twice_is_held_once(tmp_path: Path, place: Place) -> None:
    photos = write(tmp_path / "photos", a=b"apple")
    source = Folder(photos)
    source._paths *= 3
    summary = refresh(place, source, FakeEncoder())
    assert counts(summary) == {"added": 1, "repeated": 2, "total": 1}


def test_a_source_without_a_readable_picture_leaves_the_index_as_it_is(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = contents_of(place)
    for name in "abcd":
        (photos / f"{name}.png").write_bytes(DAMAGED)
    with pytest.raises(DataError, match="none of 4 images could be read"):
        refresh(place, Folder(photos), FakeEncoder())
    assert contents_of(place) == before


def test_another_model_is_refused_with_what_to_run(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    with pytest.raises(
        SearchIndexError, match=rf"'fake'.*diptych index SOURCE --index {where(place)} --model other"
    ):
        refresh(place, Folder(photos), other)
    assert other.embedded == []
    with pytest.raises(SearchIndexError, match="--rebuild"):
        Index(place).require(other)


def test_a_rebuild_embeds_everything_with_the_other_model(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    summary = refresh(place, Folder(photos), other, rebuild=True)
    assert counts(summary) == {"added": 4, "total": 4}
    assert len(other.embedded) == 4
    Index(place).require(other)
    assert len(contents(place)) == 4


def test_the_old_index_answers_while_a_rebuild_is_half_done(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)

    def look(_: int) -> None:
        assert Index(place).manifest.current.model == "fake"
        assert contents_of(place) == ["a.png", "b.png", "c.png", "d.png"]

    refresh(place, Folder(photos), other, rebuild=True, progress=look, commit_rows=1)
    assert Index(place).manifest.current.model == "other"
    assert len(contents(place)) == 4


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_refresh_goes_on_where_it_was(photos: Path, place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), FakeEncoder(batch_size=1), progress=interrupt, commit_rows=1)
    assert contents(place) == {"a.png": "a"}
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert encoder.embedded == ["b.png", "c.png", "d.png"]
    assert counts(summary) == {"added": 3, "unchanged": 1, "total": 4}
    assert len(contents(place)) == 4


def test_what_progress_has_counted_can_be_found(photos: Path, place: Place) -> None:
    done: list[int] = []

    def look(count: int) -> None:
        done.append(count)
        assert len(Index(place, freshness=0)) == sum(done)

    refresh(place, Folder(photos), FakeEncoder(batch_size=1), progress=look, commit_rows=2)
    assert done == [2, 2]


def test_time_alone_makes_a_refresh_write(photos: Path, place: Place) -> None:
    done: list[int] = []
    encoder = FakeEncoder(batch_size=1)
    refresh(place, Folder(photos), encoder, progress=done.append, commit_rows=100, commit_seconds=0)
    assert done == [1, 1, 1, 1]


def test_an_interrupted_rebuild_goes_on_where_it_was(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), other, rebuild=True, progress=interrupt, commit_rows=1)
    assert Index(place).manifest.current.model == "fake"
    # The index in use is brought up to date as ever meanwhile.
    write(photos, e=b"egg")
    assert counts(refresh(place, Folder(photos), FakeEncoder())) == {"added": 1, "unchanged": 4, "total": 5}
    begun = len(other.embedded)
    refresh(place, Folder(photos), other, rebuild=True)
    assert other.embedded[begun:] == ["b.png", "c.png", "d.png", "e.png"]
    Index(place).require(other)
    assert len(contents(place)) == 5


def test_the_work_of_a_third_model_is_not_used(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), other, rebuild=True, progress=interrupt)
    third = FakeEncoder(fingerprint="d" * 64)
    refresh(place, Folder(photos), third, rebuild=True)
    assert len(third.embedded) == 4
    assert connect(place).names() == [Index(place).manifest.current.name]


def test_an_open_index_follows_a_refresh_and_a_rebuild(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    reader = Index(place, freshness=0)
    write(photos, a=b"almond")
    refresh(place, Folder(photos), FakeEncoder())
    assert reader.search(vector_of(b"almond"), count=1)[0].score == pytest.approx(1, abs=2e-3)
    refresh(place, Folder(photos), FakeEncoder(fingerprint="e" * 64), rebuild=True)
    assert reader.search(vector_of(b"almond"), count=1)[0].score == pytest.approx(1, abs=2e-3)


def test_a_reader_that_has_not_looked_yet_finds_the_new_table(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    reader = Index(place, freshness=3600)
    other = FakeEncoder(fingerprint="e" * 64)
    refresh(place, Folder(photos), other, rebuild=True)
    assert len(list(reader.items())) == 4


def test_an_open_index_refuses_vectors_of_the_model_that_it_no_longer_has(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    reader = Index(place, freshness=0)
    reader.require(FakeEncoder())
    refresh(place, Folder(photos), FakeEncoder(name="other", fingerprint="e" * 64), rebuild=True)
    with pytest.raises(SearchIndexError, match="was filled by the model 'other'"):
        reader.search(vector_of(b"apple"))


def test_pictures_that_exchange_their_names_are_not_embedded_again(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (photos / f"{old}.png").rename(photos / f"{new}.png")
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder, commit_rows=1)) == {
        "updated": 2,
        "unchanged": 2,
        "total": 4,
    }
    assert len(encoder.embedded) <= 1  # one at a time, the second finds its vector overwritten
    assert len(contents(place)) == 4


def test_a_picture_that_became_unreadable_leaves_the_index(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    write(photos, b=DAMAGED)
    assert counts(refresh(place, Folder(photos), FakeEncoder())) == {"unchanged": 3, "removed": 1, "total": 3}
    assert set(contents(place)) == {"a.png", "c.png", "d.png"}


def test_a_file_name_that_is_no_unicode_is_kept(tmp_path: Path, place: Place) -> None:
    folder = write(tmp_path / "photos", a=b"apple")
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/caf\xe9.png")
    refresh(place, Folder(folder), FakeEncoder())
    (item,) = Index(place).items()
    assert Path(item.uri).read_bytes() == b"apple"
    assert counts(refresh(place, Folder(folder), FakeEncoder())) == {"unchanged": 1, "total": 1}


def test_words_of_the_source_are_kept_and_filtered_by(tmp_path: Path, place: Place) -> None:
    class Told(Contained):
        def __getitem__(self, position: int) -> Example:
            example = super().__getitem__(position)
            words = {"author": "Ann O'Hara", "year": 1999, "nested": {"a": [1]}}
            return dataclasses.replace(example, tags=("sea", "sun"), label="beach", metadata=words)

    refresh(place, Told("x.tar", {"a": b"1"}), FakeEncoder())
    index = Index(place)
    (item,) = index.items('tag = sun and meta.author = "Ann O\'Hara" and meta.year = 1999 and label = beach')
    assert item.metadata == {"author": "Ann O'Hara", "year": 1999, "nested": {"a": [1]}}
    assert (item.tags, item.label) == (("sea", "sun"), "beach")
    assert index.count("tag = sand") == 0


def test_thumbnails_can_be_left_out(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder(), thumbnails=False)
    assert list(connect(place).thumbnail_names()) == []
    assert {item.thumbnail for item in Index(place).items()} == {None}


def test_thumbnails_that_a_killed_writer_left_go_with_the_next(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    database = connect(place)
    leave_writing(database)
    database.put_thumbnails({"0" * 32 + "-left": b"over", item_id(str(photos / "a.png")) + "-older": b"over"})
    refresh(place, Folder(photos), FakeEncoder())
    assert len(contents(place)) == 4
    manifest = read_manifest(database)
    assert manifest is not None
    assert not manifest.writing


def test_half_a_thumbnail_that_a_killed_writer_left_goes_with_the_next(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"
    refresh(place, Folder(photos), FakeEncoder())
    database = connect(place)
    leave_writing(database)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            database.put_thumbnails({item_id(str(photos / "a.png")) + "-" + "0" * 32: b"half"})
    assert len(set(database.thumbnail_names())) == 5
    refresh(place, Folder(photos), FakeEncoder())
    assert len(contents(place)) == 4


def test_a_second_writer_is_refused(photos: Path, place: Place) -> None:
    def try_again(_: int) -> None:
        with pytest.raises(SearchIndexError, match="another process is writing"):
            refresh(place, Folder(photos), FakeEncoder())

    refresh(place, Folder(photos), FakeEncoder(), progress=try_again)


def test_a_file_in_place_of_the_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("")
    with pytest.raises(SearchIndexError, match="is a file"):
        refresh(tmp_path / "index", Folder(photos), FakeEncoder())


def test_a_pipe_named_like_a_picture_does_not_hang_the_refresh(photos: Path, place: Place) -> None:
    os.mkfifo(photos / "pipe.png")

    with pytest.raises(DataError, match=r"pipe\.png: not a file"):
        refresh(place, Folder(photos), FakeEncoder(batch_size=1))


def test_vectors_are_stored_in_half_precision(photos: Path, place: Place) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    (item, *_) = Index(place).items()
    (vector,) = Index(place).get([item.id]).vectors
    assert vector.dtype == np.float16
    assert vector.tolist() == vector_of(Path(item.uri).read_bytes()).astype(np.float16).tolist()


@pytest.mark.parametrize("kind", ["bucket", "postgres"])
def test_an_index_past_this_machine_is_kept_like_one_in_a_folder(
    opened: Callable[[str], Database], kind: str, photos: Path
) -> None:
    database = opened(kind)
    assert counts(refresh(database, Folder(photos), FakeEncoder())) == {"added": 4, "total": 4}
    (photos / "a.png").rename(photos / "z.png")
    write(photos, b=b"butter", c=DAMAGED)
    encoder = FakeEncoder()
    summary = refresh(database, Folder(photos), encoder, commit_rows=1)
    assert counts(summary) == {"updated": 1, "moved": 1, "unchanged": 1, "removed": 1, "total": 3}
    assert encoder.embedded == ["b.png"]
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    with pytest.raises(
        SearchIndexError, match=f"diptych index SOURCE --index {database.place} --model other"
    ):
        refresh(database, Folder(photos), other)
    refresh(database, Folder(photos), other, rebuild=True)
    assert contents(database).keys() == {"b.png", "d.png", "z.png"}
    assert len(database.names()) == 1
    database.close()


DISK_FULL = """
import resource, sys
from pathlib import Path
from tests.search.fake_encoder import Contained, FakeEncoder
from diptych.errors import SearchIndexError
from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.integrity import verify

place = Path(sys.argv[1])
few = {str(number): b"%d" % number for number in range(5)}
many = {str(number): b"%d" % number for number in range(400)}
refresh(place, Contained("/x.tar", few), FakeEncoder())
# No file may grow beyond this: what a full disk looks like to a writer.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    refresh(place, Contained("/x.tar", many), FakeEncoder())
except SearchIndexError as error:
    print(error)
assert len(Index(place)) == 5
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
verify(place)
assert refresh(place, Contained("/x.tar", many), FakeEncoder()).added == 395
verify(place)
print("goes on")
"""


def test_a_full_disk_is_an_error_that_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DISK_FULL, str(tmp_path / "index")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, last = done.stdout.splitlines()
    assert str(tmp_path / "index") in first
    assert "File too large" in first
    assert last == "goes on"


class RowNumbers:
    """A source whose keys are row numbers, as those of tables with images inside once were."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.fingerprint = source.name, source.fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int, /) -> Example:
        return dataclasses.replace(self._source[position], key=str(position))

    def describe(self) -> str:
        return self.name


def test_rows_of_an_index_made_with_row_numbers_as_keys_are_not_embedded_again(tmp_path: Path) -> None:
    images = [b"apple", b"bread", b"apple", b"cat"]
    cells = [{"image": {"bytes": image, "path": None}, "caption": image.decode()} for image in images]
    parquet.write_table(pyarrow.Table.from_pylist(cells), tmp_path / "t.parquet")
    source, encoder = open_source(tmp_path / "t.parquet"), FakeEncoder()
    made = refresh(tmp_path / "index", RowNumbers(source), encoder, thumbnails=False)
    assert counts(made) == {"added": 4, "total": 4}
    encoder.embedded.clear()
    done = refresh(tmp_path / "index", source, encoder, thumbnails=False)
    assert encoder.embedded == []
    assert (done.moved, done.added, done.total) == (3, 0, 3)
    assert counts(refresh(tmp_path / "index", source, encoder, thumbnails=False))["unchanged"] == 3
    assert {item.uri.partition("#")[2] for item in Index(tmp_path / "index").items()} == {
        content_key(image) for image in images
    }
