"""An index of format 2, `index_of_format_2.tar.gz`: six pictures by the fake encoder, written by the code before format
3. Each had two captions, of which that code kept the first."""

from pathlib import Path

import pytest

from diptych.data.example import Example
from diptych.data.images.photograph import Photograph
from diptych.errors import SettingsError
from diptych.search.building import rewriting, snapshot
from diptych.search.building.build import refresh
from diptych.search.building.removal import remove
from diptych.search.image_index import Index
from diptych.search.integrity import verify
from diptych.search.manifest import FORMAT_VERSION, read_manifest
from diptych.search.stores import image_rows
from diptych.search.stores.connect import connect
from diptych.search.stores.filter_syntax import parse
from tests.data.tar_files import unpack
from tests.photograph_files import exif_of, photograph_file
from tests.search.fake_encoder import Contained, FakeEncoder, vector_of

NAME = "memory://box"
PICTURES = {f"{number:02}": f"picture {number}".encode() for number in range(6)}


class Captioned(Contained):
    """What the index was made of."""

    def __getitem__(self, position: int) -> Example:
        key = list(self.pictures)[position]
        captions = (f"first {key}", f"second {key}")
        return Example(key=key, image=self.pictures[key], captions=captions, tags=("sea",), label="box")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    unpack(Path(__file__).with_name("index_of_format_2.tar.gz"), tmp_path)
    return tmp_path / "index"


def test_an_old_index_is_read_as_it_is(old: Path) -> None:
    index = Index(old)
    assert index.manifest.format_version == 2
    (hit,) = index.search(vector_of(PICTURES["03"]), count=1, filter_='caption = "first 03" and tag = sea')
    assert (hit.item.caption, hit.item.captions, hit.item.taken) == ("first 03", ("first 03",), None)
    assert index.count('caption contains "FIRST"') == len(index) == 6
    assert index.thumbnail(hit.item.id) is not None
    assert verify(old).images == 6


@pytest.mark.parametrize("filter_", ["taken > 2024-01-01", "camera contains x", 'place near "1, 2, 3 km"'])
def test_what_an_old_index_does_not_record_is_refused(old: Path, filter_: str) -> None:
    with pytest.raises(SettingsError, match=r"was written by an older Diptych, without .*upgrade it first"):
        Index(old).count(filter_)
    with pytest.raises(SettingsError, match="older Diptych"):
        remove(old, parse(filter_))
    assert Index(old).manifest.format_version == 2


def test_sorting_an_old_index_is_refused(old: Path) -> None:
    with pytest.raises(SettingsError, match="older Diptych, without taken"):
        Index(old).first(3, sort="newest")


def test_the_next_refresh_brings_it_up_to_date_without_embedding(old: Path) -> None:
    encoder, reader = FakeEncoder(), Index(old, freshness=0)
    before = {item.id: item for item in reader.items()}
    summary = refresh(old, Captioned(NAME, PICTURES), encoder)
    assert (summary.unchanged, summary.total, encoder.embedded) == (6, 6, [])
    manifest = read_manifest(connect(old))
    assert manifest is not None
    assert manifest.format_version == FORMAT_VERSION
    assert connect(old).names() == [manifest.current.name]
    assert {item.id for item in reader.items()} == set(before)
    assert reader.count('caption = "second 03"') == 1
    assert reader.count("taken > 2024-01-01") == 0
    (hit,) = reader.search(vector_of(PICTURES["03"]), count=1)
    assert hit.score == pytest.approx(1, abs=2e-3)
    assert reader.thumbnail(hit.item.id) is not None
    assert verify(old).images == 6


def test_pictures_of_other_sources_stay_as_they_were(old: Path) -> None:
    new = {"x": photograph_file(exif_of(taken="2024:06:01 10:00:00"))}
    refresh(old, Contained("memory://other", new), FakeEncoder())
    index = Index(old)
    assert (len(index), index.count("taken > 2024-01-01"), index.count('caption contains "first"')) == (
        7,
        1,
        6,
    )


def test_exif_of_pictures_that_an_old_index_has_is_read_by_the_next_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: the row was written by a version that read less of a picture."""
    data = {"x": photograph_file(exif_of(taken="2024:06:01 10:00:00", model="X100"))}
    place = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "READING", image_rows.READING - 1)
        patch.setattr(snapshot, "photograph", lambda _: Photograph())
        refresh(place, Contained(NAME, data), FakeEncoder())
    (found,) = Index(place).items()
    assert found.taken is None
    encoder = FakeEncoder()
    refresh(place, Contained(NAME, data), encoder)
    (found,) = Index(place).items()
    assert (found.taken, found.camera, encoder.embedded) == ("2024-06-01T10:00:00", "X100", [])


def test_exif_is_read_also_where_another_source_brought_the_index_up_to_date_first(tmp_path: Path) -> None:
    """The rows are copied to a table of the present format before anything is read of their pictures."""
    data = {"x": photograph_file(exif_of(taken="2024:06:01 10:00:00", model="X100"))}
    place = tmp_path / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "READING", image_rows.READING - 1)
        patch.setattr(snapshot, "photograph", lambda _: Photograph())
        refresh(place, Contained(NAME, data), FakeEncoder())
    database = connect(place)
    manifest = read_manifest(database)
    assert manifest is not None
    rewriting.rewrite_tables(database, manifest)
    encoder = FakeEncoder()
    refresh(place, Contained(NAME, data), encoder)
    (found,) = Index(place).items()
    assert (found.taken, found.camera, encoder.embedded) == ("2024-06-01T10:00:00", "X100", [])


def test_a_kill_while_it_is_brought_up_to_date_leaves_it_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rewriting, "copy_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(old, Captioned(NAME, PICTURES), FakeEncoder())
    assert len(Index(old)) == 6
    assert refresh(old, Captioned(NAME, PICTURES), FakeEncoder()).unchanged == 6
