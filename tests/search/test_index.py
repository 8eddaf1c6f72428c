"""Questions to an index, and manifests that are not what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import SearchIndexError, SettingsError
from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.manifest import read_manifest, write_manifest
from tests.memory_store import MemoryDatabase
from tests.search.fake_encoder import DIM, Contained, FakeEncoder


@pytest.fixture(scope="module")
def place() -> MemoryDatabase:
    """An index of 200 pictures."""
    database = MemoryDatabase()
    pictures = {f"{number:03}": b"%d" % number for number in range(200)}
    refresh(database, Contained("/x.tar", pictures), FakeEncoder())
    return database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of a few pictures, in a folder."""
    pictures = {f"{number:03}": b"%d" % number for number in range(8)}
    refresh(tmp_path / "index", Contained("/x.tar", pictures), FakeEncoder())
    return tmp_path / "index"


def queries(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


@pytest.mark.parametrize("count", [1, 10, 500])
def test_search_equals_sorting_every_row(place: MemoryDatabase, count: int) -> None:
    index = Index(place)
    everything = index.get([item.id for item in index.items()])
    for query in queries(5):
        scores = [
            float(np.dot(vector, query) / np.linalg.norm(vector))
            for vector in everything.vectors.astype(float)
        ]
        order = sorted(range(200), key=lambda row: -scores[row])[:count]
        found = index.search(query, count=count)
        assert [hit.item for hit in found] == [everything.items[row] for row in order]
        assert [hit.score for hit in found] == pytest.approx([scores[row] for row in order], abs=1e-5)


def test_a_least_score_leaves_out_what_is_below_it(place: MemoryDatabase) -> None:
    query = queries(1)[0]
    every = Index(place).search(query, count=200)
    some = Index(place).search(query, count=200, min_score=0.3)
    assert some == [hit for hit in every if hit.score >= 0.3]
    assert 0 < len(some) < len(every)


def test_pages_follow_one_another_without_a_gap(place: MemoryDatabase) -> None:
    query = queries(1)[0]
    every = Index(place).search(query, count=200)
    pages = [Index(place).search(query, count=30, offset=offset) for offset in range(0, 200, 30)]
    assert [hit for page in pages for hit in page] == every


def test_a_filter_may_be_text(place: MemoryDatabase) -> None:
    index = Index(place)
    hits = index.search(queries(1)[0], count=200, filter_='uri contains "#01"')
    assert {hit.item.uri for hit in hits} == {f"/x.tar#{number:03}" for number in range(10, 20)}
    assert index.count('uri contains "#01"') == 10
    with pytest.raises(SettingsError, match="unknown field 'colour"):
        index.search(queries(1)[0], filter_="colour = red")


def test_a_query_that_cannot_be_answered_is_refused(place: MemoryDatabase) -> None:
    index = Index(place)
    with pytest.raises(ValueError, match="expected \\(8,\\)"):
        index.search(np.ones(9, np.float32))
    with pytest.raises(SettingsError, match="at least 1"):
        index.search(queries(1)[0], count=0)
    with pytest.raises(SettingsError, match="at most the first 10,000"):
        index.search(queries(1)[0], count=10, offset=9_995)


def test_a_folder_without_an_index_is_an_error_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="diptych index SOURCE --index"):
        Index(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_thumbnails_are_found_by_the_id_of_their_picture(place: MemoryDatabase) -> None:
    index = Index(place)
    item = next(index.items('uri = "/x.tar#017"'))
    assert index.thumbnail(item.id) == b"small copy of 17"
    assert index.thumbnail("0" * 32) is None


def test_an_index_of_the_older_format_is_an_error_that_says_to_build_it_again(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format_version": 1, "generation": 3, "dim": 8}')
    for open_ in (Index, lambda place: refresh(place, Contained("/x.tar", {"a": b"1"}), FakeEncoder())):
        with pytest.raises(
            SearchIndexError, match=r"format version 1.*build the index again: diptych index SOURCE"
        ):
            open_(tmp_path)


@pytest.mark.parametrize(
    "change", [{"format_version": 4}, {"format_version": None}, {"extra": 1}, {"serial": 2}]
)
def test_a_manifest_of_another_form_is_refused(folder: Path, change: dict[str, int | None]) -> None:
    file = folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SearchIndexError, match=r"index\.json"):
        Index(folder)


def test_a_manifest_survives_its_own_writing(folder: Path) -> None:
    database = Index(folder).database
    manifest = read_manifest(database)
    assert manifest is not None
    assert write_manifest(database, manifest) == manifest == read_manifest(database)


def test_a_cut_manifest_is_refused(folder: Path) -> None:
    file = folder / "index.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SearchIndexError, match=r"index\.json: is damaged"):
        Index(folder)


def test_the_old_table_s_files_gone_under_an_open_index_are_an_error_that_names_the_folder(
    folder: Path,
) -> None:
    index = Index(folder)
    for file in (folder / "images-000001.lance" / "data").iterdir():
        file.unlink()
    with pytest.raises(SearchIndexError, match=f"{folder}.*diptych verify"):
        list(index.items())
