"""Pages of an approximate search: its answers depend on how many results are asked for, the pages must not."""

from collections.abc import Callable

import numpy as np
import pytest

from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.stores.filters import Filter
from diptych.search.stores.image_rows import Hit
from diptych.search.stores.protocol import Query
from tests.memory_store import MemoryDatabase, MemoryStore
from tests.search.fake_encoder import DIM, Contained, FakeEncoder

COUNT = 1_200


@pytest.fixture(scope="module")
def database() -> MemoryDatabase:
    place = MemoryDatabase()
    pictures = {f"{number:04}": b"%d" % number for number in range(COUNT)}
    refresh(place, Contained("/x.tar", pictures), FakeEncoder(batch_size=500))
    return place


@pytest.fixture
def approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that misses a fifth of the pictures, another fifth for another depth."""
    true_search = MemoryStore.search

    def search(
        self: MemoryStore,
        query: Query,
        k: int,
        *,
        filter_: Filter | None = None,
        exact: bool = False,
        offset: int = 0,
    ) -> list[Hit]:
        hits = true_search(self, query, COUNT, filter_=filter_, exact=True)
        missed = len(str(offset + k)) + offset // 10
        seen = [hit for hit in hits if exact or int(hit.item.id, 16) % 5 != missed % 5]
        return seen[offset : offset + k]

    monkeypatch.setattr(MemoryStore, "search", search)


def query() -> np.ndarray:
    vector = np.random.default_rng(0).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def paged(search: Callable[[int, int], list[Hit]], size: int) -> list[str]:
    return [hit.item.id for offset in range(0, COUNT, size) for hit in search(offset, size)]


@pytest.mark.usefixtures("approximate")
@pytest.mark.parametrize("size", [97, 250])
def test_pages_of_an_approximate_search_neither_repeat_nor_leave_out(
    database: MemoryDatabase, size: int
) -> None:
    index = Index(database)
    pages = paged(lambda offset, count: index.search(query(), count=count, offset=offset), size)
    assert len(pages) == len(set(pages))
    assert pages == [hit.item.id for hit in index.ranking(query())]


@pytest.mark.usefixtures("approximate")
def test_asking_the_table_page_by_page_would_repeat(database: MemoryDatabase) -> None:
    (store,) = (database.open(name) for name in database.names())
    twin = [hit.item.id for offset in range(0, 300, 10) for hit in store.search(query(), 10, offset=offset)]
    assert len(twin) > len(set(twin))


@pytest.mark.usefixtures("approximate")
def test_each_depth_of_a_ranking_is_in_order_of_the_scores(database: MemoryDatabase) -> None:
    scores = [hit.score for hit in Index(database).ranking(query())]
    for start, stop in ((0, 100), (100, 500), (500, COUNT)):
        assert scores[start:stop] == sorted(scores[start:stop], reverse=True)


@pytest.mark.usefixtures("approximate")
def test_an_exact_ranking_misses_nothing(database: MemoryDatabase) -> None:
    index = Index(database)
    hits = list(index.ranking(query(), exact=True))
    assert len(hits) == len({hit.item.id for hit in hits}) == COUNT
    keys = [(-hit.score, hit.item.id) for hit in hits]
    assert keys == sorted(keys)


def test_a_ranking_asks_no_deeper_than_it_is_read(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    true_search = MemoryStore.search

    def search(self: MemoryStore, query: Query, k: int, **options: object) -> list[Hit]:
        asked.append(k)
        return true_search(self, query, k, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryStore, "search", search)
    index = Index(database)
    index.search(query(), count=10, offset=90)
    assert asked == [100]
    index.search(query(), count=10, offset=95)
    assert asked == [100, 100, 500]
    asked.clear()
    few = index.search(query(), count=200, min_score=0.9)
    assert 0 < len(few) < 100
    assert asked == [100]
