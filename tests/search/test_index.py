"""Exact search, and indexes that are not what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import DIM, Contained, FakeEncoder

from diptych.errors import SearchIndexError
from diptych.search import index as index_module
from diptych.search.build import refresh
from diptych.search.index import Index


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An index of 200 pictures."""
    pictures = {f"{number:03}": b"%d" % number for number in range(200)}
    refresh(tmp_path / "index", Contained(str(tmp_path / "x.tar"), pictures), FakeEncoder())
    return tmp_path / "index"


def queries(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [7, 64, 1000])
@pytest.mark.parametrize("count", [1, 10, 500])
def test_search_equals_sorting_every_row(
    place: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, count: int
) -> None:
    monkeypatch.setattr(index_module, "_CHUNK", chunk)
    index = Index(place)
    vectors = np.load(place / index.manifest.vectors_name).astype(np.float32)
    for query in queries(5):
        scores = [float(np.dot(vector, query)) for vector in vectors]
        order = sorted(range(200), key=lambda row: -scores[row])[:count]
        found = index.search(query, count=count)
        assert [result["uri"] for result in found] == [index[row].uri for row in order]
        assert [result["score"] for result in found] == pytest.approx(
            [scores[row] for row in order], abs=1e-5
        )


def test_of_equal_scores_the_first_row_comes_first(tmp_path: Path) -> None:
    pictures = {f"{number:03}": b"one and the same" for number in range(50)}
    refresh(tmp_path / "index", Contained(str(tmp_path / "x.tar"), pictures), FakeEncoder())
    index = Index(tmp_path / "index")
    # Every product is exact, so that no order of summation makes a difference.
    found = index.search(np.eye(DIM, dtype=np.float32)[0], count=10)
    assert [result["uri"][-3:] for result in found] == [f"{number:03}" for number in range(10)]


def test_results_have_the_shape_that_programs_rely_on(place: Path) -> None:
    (result,) = json.loads(json.dumps(Index(place).search(queries(1)[0], count=1)))
    assert set(result) == {"id", "uri", "score", "caption"}
    assert result["caption"] is None


def test_a_least_score_leaves_out_what_is_below_it(place: Path) -> None:
    query = queries(1)[0]
    every = Index(place).search(query, count=200)
    some = Index(place).search(query, count=200, min_score=0.3)
    assert some == [result for result in every if result["score"] >= 0.3]
    assert 0 < len(some) < len(every)


def test_a_query_of_another_dimension_is_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="expected \\(8,\\)"):
        Index(place).search(np.ones(9, np.float32))


def test_a_folder_without_an_index_is_an_error_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="diptych index SOURCE --index"):
        Index(tmp_path / "absent")


def damage(place: Path, kind: str) -> str:
    """Spoil one file and return its name."""
    names = {"vectors": "vectors-000001.npy", "items": "items-000001.jsonl", "manifest": "index.json"}
    name = names[kind.split(maxsplit=1)[0]]
    file = place / name
    data = bytearray(file.read_bytes())
    match kind.split()[1]:
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[-5] ^= 1
            file.write_bytes(data)
        case "gone":
            file.unlink()
    return name


@pytest.mark.parametrize("kind", ["vectors cut", "vectors gone", "items cut", "items gone", "manifest cut"])
def test_a_damaged_index_is_an_error_that_names_the_file(place: Path, kind: str) -> None:
    name = damage(place, kind)
    with pytest.raises(SearchIndexError, match=name):
        Index(place)


@pytest.mark.parametrize("kind", ["vectors flipped", "items flipped"])
def test_verify_finds_a_single_flipped_bit(place: Path, kind: str) -> None:
    Index(place).verify()
    name = damage(place, kind)
    with pytest.raises(SearchIndexError, match=f"{name}: damaged"):
        Index(place).verify()


@pytest.mark.parametrize(
    "change", [{"format_version": 2}, {"format_version": None}, {"dim": "8"}, {"extra": 1}]
)
def test_a_manifest_of_another_form_is_refused(place: Path, change: dict) -> None:
    file = place / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SearchIndexError, match=r"index\.json"):
        Index(place)
