"""What a refresh embeds, keeps, moves and removes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import DAMAGED, Contained, FakeEncoder, Folder, vector_of

from diptych.errors import DataError, SearchIndexError
from diptych.search.build import Summary, refresh
from diptych.search.index import Index


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    return folder


def counts(summary: Summary) -> dict[str, int]:
    names = ("added", "updated", "moved", "unchanged", "removed", "repeated", "total")
    return {name: getattr(summary, name) for name in names if getattr(summary, name)}


def contents(folder: Path) -> dict[str, str]:
    """File name to caption of every picture, after a check that each vector is that of the file's bytes."""
    index = Index(folder)
    index.verify()
    found = {}
    for row in range(len(index)):
        item = index[row]
        expected = vector_of(Path(item.uri).read_bytes())
        (best,) = index.search(expected, count=1)
        assert best["uri"] == item.uri
        assert best["score"] == pytest.approx(1, abs=2e-3)
        found[Path(item.uri).name] = item.caption
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", a=b"apple", b=b"bread", c=b"cat", d=b"dog")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_a_new_index_holds_every_picture(photos: Path, place: Path) -> None:
    done = []
    summary = refresh(place, Folder(photos), FakeEncoder(), progress=done.append)
    assert counts(summary) == {"added": 4, "total": 4}
    assert contents(place) == {"a.png": "a", "b.png": "b", "c.png": "c", "d.png": "d"}
    assert sum(done) == 4
    assert sorted(file.name for file in place.iterdir()) == [
        "index.json",
        "items-000001.jsonl",
        "lock",
        "vectors-000001.npy",
    ]


def test_a_second_refresh_embeds_nothing_and_writes_nothing(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = {file.name: file.stat().st_mtime_ns for file in place.iterdir()}
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"unchanged": 4, "total": 4}
    assert encoder.embedded == []
    assert {file.name: file.stat().st_mtime_ns for file in place.iterdir()} == before


def test_only_new_and_changed_files_are_embedded(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    write(photos, b=b"butter", e=b"egg")
    (photos / "d.png").unlink()
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert counts(summary) == {"added": 1, "updated": 1, "unchanged": 2, "removed": 1, "total": 4}
    assert encoder.embedded == ["b.png", "e.png"]
    assert set(contents(place)) == {"a.png", "b.png", "c.png", "e.png"}


def test_a_file_changed_to_the_same_size_is_embedded_again(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    write(photos, c=b"cow")
    os.utime(photos / "c.png", ns=(1, 1))
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"updated": 1, "unchanged": 3, "total": 4}
    assert encoder.embedded == ["c.png"]


def test_a_touched_file_is_not_embedded_again(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    os.utime(photos / "c.png", ns=(1, 1))
    encoder = FakeEncoder()
    assert counts(refresh(place, Folder(photos), encoder)) == {"unchanged": 4, "total": 4}
    assert encoder.embedded == []
    assert [Index(place)[row].mtime_ns for row in range(4)].count(1) == 1


def test_moved_and_copied_files_are_not_embedded_again(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    (photos / "a.png").rename(photos / "z.png")
    write(photos, copy=b"bread")
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert counts(summary) == {"added": 1, "moved": 1, "unchanged": 3, "total": 5}
    assert encoder.embedded == []
    assert set(contents_of(place)) == {"b.png", "c.png", "copy.png", "d.png", "z.png"}


def contents_of(folder: Path) -> list[str]:
    index = Index(folder)
    return [Path(index[row].uri).name for row in range(len(index))]


def test_the_id_of_a_picture_stays_when_its_bytes_change(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = {index_item.uri: index_item.id for index_item in map(Index(place).__getitem__, range(4))}
    write(photos, a=b"almond")
    refresh(place, Folder(photos), FakeEncoder())
    assert {item.uri: item.id for item in map(Index(place).__getitem__, range(4))} == before
    assert len(set(before.values())) == 4


def test_a_new_caption_is_taken_over_without_embedding(tmp_path: Path, place: Path) -> None:
    photos = write(tmp_path / "photos", a=b"apple")
    refresh(place, Folder(photos), FakeEncoder())

    class Renamed(Folder):
        def __getitem__(self, position: int) -> object:
            example = super().__getitem__(position)
            return type(example)(key=example.key, image=example.image, captions=("an apple",))

    encoder = FakeEncoder()
    refresh(place, Renamed(photos), encoder)
    assert contents(place) == {"a.png": "an apple"}
    assert encoder.embedded == []


def test_skipped_pictures_are_listed_with_their_place_and_recorded(photos: Path, place: Path) -> None:
    write(photos, b=DAMAGED)
    summary = refresh(place, Folder(photos), FakeEncoder())
    assert counts(summary) == {"added": 3, "total": 3}
    assert [(row.uri, row.reason) for row in summary.skipped] == [(str(photos / "b.png"), "unreadable image")]
    assert Index(place).manifest.skipped == {str(photos): {"unreadable image": 1}}


def test_pictures_inside_something_else_are_known_by_their_bytes(tmp_path: Path, place: Path) -> None:
    name = str(tmp_path / "shard.tar")
    refresh(place, Contained(name, {"x": b"apple", "y": b"bread"}), FakeEncoder())
    encoder = FakeEncoder()
    summary = refresh(place, Contained(name, {"x": b"apple", "y": b"butter", "z": b"cat"}), encoder)
    assert counts(summary) == {"added": 1, "updated": 1, "unchanged": 1, "total": 3}
    assert encoder.embedded == ["y", "z"]
    assert Index(place)[0].uri == f"{name}#x"


def test_pictures_of_another_source_stay(photos: Path, tmp_path: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    more = write(tmp_path / "more", x=b"xylophone")
    assert counts(refresh(place, Folder(more), FakeEncoder())) == {"added": 1, "total": 5}
    (photos / "a.png").unlink()
    summary = refresh(place, Folder(photos), FakeEncoder())
    assert counts(summary) == {"unchanged": 3, "removed": 1, "total": 4}
    assert set(contents(place)) == {"b.png", "c.png", "d.png", "x.png"}


def test_a_picture_that_is_listed_twice_is_held_once(tmp_path: Path, place: Path) -> None:
    photos = write(tmp_path / "photos", a=b"apple")
    source = Folder(photos)
    source._paths *= 3
    summary = refresh(place, source, FakeEncoder())
    assert counts(summary) == {"added": 1, "repeated": 2, "total": 1}


def test_a_source_without_a_readable_picture_leaves_the_index_as_it_is(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    before = contents_of(place)
    for name in "abcd":
        (photos / f"{name}.png").write_bytes(DAMAGED)
    with pytest.raises(DataError, match="none of 4 images could be read"):
        refresh(place, Folder(photos), FakeEncoder())
    assert contents_of(place) == before


def test_another_model_is_refused_with_what_to_run(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    with pytest.raises(
        SearchIndexError, match=rf"'fake'.*diptych index SOURCE --index {place} --model other"
    ):
        refresh(place, Folder(photos), other)
    assert other.embedded == []
    with pytest.raises(SearchIndexError, match="--rebuild"):
        Index(place).require(other)


def test_a_rebuild_embeds_everything_with_the_other_model(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)
    summary = refresh(place, Folder(photos), other, rebuild=True)
    assert counts(summary) == {"added": 4, "total": 4}
    assert len(other.embedded) == 4
    Index(place).require(other)
    assert len(contents(place)) == 4


def test_the_old_index_answers_while_a_rebuild_is_half_done(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    other = FakeEncoder(name="other", fingerprint="e" * 64)

    def look(_: int) -> None:
        assert Index(place).manifest.model == "fake"
        assert len(contents(place)) == 4

    refresh(place, Folder(photos), other, rebuild=True, progress=look)
    assert Index(place).manifest.model == "other"


def test_an_interrupted_refresh_goes_on_where_it_was(photos: Path, place: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), FakeEncoder(batch_size=1), progress=interrupt)
    encoder = FakeEncoder()
    summary = refresh(place, Folder(photos), encoder)
    assert encoder.embedded == ["b.png", "c.png", "d.png"]
    assert counts(summary) == {"added": 4, "total": 4}
    assert len(contents(place)) == 4


def test_the_work_of_another_model_is_not_used(photos: Path, place: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(place, Folder(photos), FakeEncoder(), progress=interrupt)
    other = FakeEncoder(fingerprint="e" * 64)
    refresh(place, Folder(photos), other)
    assert len(other.embedded) == 4


def test_a_reader_keeps_its_generation_while_a_refresh_replaces_it(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    reader = Index(place)
    write(photos, a=b"almond")
    refresh(place, Folder(photos), FakeEncoder())
    assert reader.search(vector_of(b"apple"), count=1)[0]["score"] == pytest.approx(1, abs=2e-3)
    assert Index(place).search(vector_of(b"almond"), count=1)[0]["score"] == pytest.approx(1, abs=2e-3)


def test_a_second_writer_is_refused(photos: Path, place: Path) -> None:
    def try_again(_: int) -> None:
        with pytest.raises(SearchIndexError, match="another process is writing"):
            refresh(place, Folder(photos), FakeEncoder())

    refresh(place, Folder(photos), FakeEncoder(), progress=try_again)


def test_a_file_in_place_of_the_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("")
    with pytest.raises(SearchIndexError, match="is a file"):
        refresh(tmp_path / "index", Folder(photos), FakeEncoder())


def test_a_pipe_named_like_a_picture_does_not_hang_the_refresh(photos: Path, place: Path) -> None:
    os.mkfifo(photos / "pipe.png")

    with pytest.raises(DataError, match=r"pipe\.png: not a file"):
        refresh(place, Folder(photos), FakeEncoder(batch_size=1))


def test_killed_at_every_step_a_refresh_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    """SIGKILL before every file operation, and with the end of every write to the work area lost."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    script = Path(__file__).with_name("crash_points.py")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", script, tmp_path],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, textwrap.indent(result.stderr[-3000:], "    ")
    outcome = json.loads(result.stdout)
    assert outcome["killed"] > 50
    assert outcome["old"] > 0
    assert outcome["new"] > 0
    assert outcome["resumed_with_less_work"] > 0


def test_vectors_are_stored_in_half_precision(photos: Path, place: Path) -> None:
    refresh(place, Folder(photos), FakeEncoder())
    assert np.load(place / "vectors-000001.npy").dtype == np.float16
