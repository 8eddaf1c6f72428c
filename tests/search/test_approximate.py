"""Approximate search, with thresholds so low that a few hundred rows are a large index."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pytest

from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.integrity import verify
from diptych.search.stores import lance, pgvector
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.image_rows import Batch, Item, item_id
from diptych.search.stores.protocol import Database
from tests.memory_store import MemoryStore
from tests.search.fake_encoder import Contained, FakeEncoder

DIM = 16
ROWS = 600


def batch(numbers: range, seed: int = 0) -> Batch:
    """Images around a few places, as real ones lie."""
    dice = np.random.default_rng(seed)
    places = np.random.default_rng(7).normal(size=(20, DIM))
    rows = places[dice.integers(20, size=len(numbers))] + 0.7 * dice.normal(size=(len(numbers), DIM))
    items = [
        Item(item_id(str(number)), str(number), "s", number, None, f"{number:064x}", width=number % 50)
        for number in numbers
    ]
    return Batch(items, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))


def questions(count: int) -> np.ndarray:
    return batch(range(count), seed=99).vectors.astype(np.float32)


@pytest.fixture(params=["folder", "bucket", "postgres"])
def database(
    request: pytest.FixtureRequest, opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    for module in (lance, pgvector):
        monkeypatch.setattr(module, "EXACT_ROWS", 300)
    monkeypatch.setattr(lance, "PARTITION_ROWS", 64)
    monkeypatch.setattr(lance, "PROBES", 4)
    database = opened(request.param)
    with database.writing():
        yield database
    database.close()


def test_it_finds_nearly_all_and_its_scores_are_exact(database: Database) -> None:
    store, oracle = database.create("images", DIM), MemoryStore(DIM)
    for each in (store, oracle):
        each.upsert(batch(range(ROWS)))
    store.optimize()
    assert store.stats().indexed
    assert store.stats().unindexed == 0
    found = hits = 0
    for query in questions(40):
        best = {hit.item.id: hit.score for hit in oracle.search(query, 10)}
        near = store.search(query, 10)
        assert [hit.score for hit in near] == sorted((hit.score for hit in near), reverse=True)
        assert all(hit.score == best[hit.item.id] for hit in near if hit.item.id in best)
        found += len(best.keys() & {hit.item.id for hit in near})
        hits += 10
        assert store.search(query, 10, exact=True) == oracle.search(query, 10)
    assert found / hits > 0.9


def test_what_is_added_after_the_index_was_built_is_found_at_once(database: Database) -> None:
    store = database.create("images", DIM)
    store.upsert(batch(range(ROWS)))
    store.optimize()
    added = batch(range(ROWS, ROWS + 20), seed=5)
    store.upsert(added)
    for item, vector in zip(added.items, added.vectors, strict=True):
        assert store.search(vector.astype(np.float32), 1)[0].item == item
    store.delete([added.items[0].id])
    assert store.search(added.vectors[0].astype(np.float32), 1)[0].item != added.items[0]
    changed = Batch([added.items[1]], -added.vectors[1:2])
    store.upsert(changed)
    assert store.search(-added.vectors[1].astype(np.float32), 1)[0].item == added.items[1]


def test_a_filter_that_few_pictures_meet_finds_all_of_them(database: Database) -> None:
    store = database.create("images", DIM)
    store.upsert(batch(range(ROWS)))
    store.optimize()
    for text, count in (("width = 3", 12), ("bytes = 17", 1), ("bytes = 99999", 0)):
        for query in questions(5):
            assert len(store.search(query, 20, filter_=parse(text))) == count, text


def test_a_table_that_has_outgrown_its_index_is_indexed_anew(
    opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "EXACT_ROWS", 300)
    monkeypatch.setattr(lance, "PARTITION_ROWS", 64)
    database = opened("folder")
    with database.writing():
        store = database.create("images", DIM)
        assert isinstance(store, lance.LanceStore)
        store.upsert(batch(range(300)))
        store.optimize()
        assert store._index_name() == "vector_of_300"
        store.upsert(batch(range(300, 599)))
        store.optimize(force=True)
        assert store._index_name() == "vector_of_300"
        assert store.stats().unindexed == 0
        store.upsert(batch(range(599, 620)))
        store.optimize(force=True)
        assert store._index_name() == "vector_of_620"
        assert [found.name for found in lance._LOOP.run(store._table.list_indices())].count(
            "vector_of_300"
        ) == 0
        assert store.count() == 620
        assert len(store.search(questions(1)[0], 10)) == 10


def test_many_small_writes_are_compacted_by_themselves(
    opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "FEW_FRAGMENTS", 10)
    database = opened("folder")
    pictures = {f"{number:03}": b"%d" % number for number in range(40)}
    refresh(database, Contained("/x.tar", pictures), FakeEncoder(batch_size=1), commit_rows=1)
    index = Index(database, freshness=0)
    assert len(index) == 40
    assert index.stats().fragments < 12


def test_versions_that_nobody_reads_any_more_are_cleaned_up(
    opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one hour, and twice that before a refresh that has nothing else to do sees to it; here of milliseconds."""
    database = opened("folder")
    pictures = {f"{number:03}": b"%d" % number for number in range(12)}
    refresh(database, Contained("/x.tar", pictures), FakeEncoder(batch_size=1), commit_rows=1)
    index = Index(database, freshness=0)
    assert index.stats().versions > 12
    monkeypatch.setattr(lance, "KEEP_VERSIONS", timedelta(milliseconds=1))
    time.sleep(0.01)
    refresh(database, Contained("/x.tar", pictures), FakeEncoder())
    assert index.stats().versions <= 2
    assert len(index) == 12
    verify(database)
