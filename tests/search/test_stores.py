"""What every store promises, on a folder, a bucket, PostgreSQL and memory; numpy's answers are the oracle."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from diptych.errors import SearchIndexError
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import matches
from diptych.search.stores.image_rows import Batch, Item, item_id
from diptych.search.stores.protocol import Database, VectorStore
from tests.memory_store import MemoryStore
from tests.search.index_places import PLACES

DIM = 16
HOSTILE = [
    "it's",
    'say "cheese"',
    "back\\slash",
    "100%",
    "under_score",
    "a' OR 1=1 --",
    "x'); DROP TABLE images; --",
    "line\nend",
    "nul\0inside",
    "\udce9 stray byte",
    "\ud800 half a pair",
    "%s %(id)s {0} {} $1 :id ?",
    "日本語 Ünï",
    "\u202eright to left",
    "/* comment */",
    "",
]


def item(number: int, **changes: Any) -> Item:
    uri = f"/photos/{number:04}.jpg"
    known = Item(
        id=item_id(uri),
        uri=uri,
        source="/photos",
        size=1000 + number,
        mtime_ns=number * 86_400_000_000_000 if number % 3 else None,
        sha256=f"{number:064x}",
        caption=f"Picture {number}" if number % 4 else None,
        label=("cat", "dog", None)[number % 3],
        tags=("sea", f"year {number % 5}")[: number % 3],
        metadata={"author": f"Person {number % 7}", "count": number % 2},
        width=100 + number % 10,
        height=105,
        further_captions=(f"Second of {number}", f"Third, {number % 6}")[: number % 4],
        taken=f"20{10 + number % 20}-0{1 + number % 9}-01T12:00:00" if number % 5 else None,
        camera=("Apple iPhone 15", "Canon R5", None)[number % 3],
        latitude=number - 30.5 if number % 2 else None,
        longitude=6 * number - 179.25 if number % 2 else None,
    )
    return dataclasses.replace(known, **changes)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIM))
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float16)


def batch(numbers: range | list[int], seed: int = 0) -> Batch:
    return Batch([item(number) for number in numbers], vectors(len(numbers), seed))


@pytest.fixture(params=PLACES)
def database(request: pytest.FixtureRequest, opened: Callable[[str], Database]) -> Iterator[Database]:
    database = opened(request.param)
    with database.writing():
        yield database
    database.close()


@pytest.fixture
def store(database: Database) -> VectorStore:
    return database.create("images", DIM)


def ids(batch: Batch) -> list[str]:
    return [one.id for one in batch.items]


def test_what_was_written_is_read_back(store: VectorStore) -> None:
    written = batch(range(20))
    store.upsert(written)
    found = store.get(ids(written))
    assert list(found.items) == list(written.items)
    assert found.vectors.dtype == np.float16
    np.testing.assert_array_equal(found.vectors, written.vectors)
    assert store.count() == 20


def test_an_empty_table_answers(store: VectorStore) -> None:
    assert store.search(vectors(1)[0].astype(np.float32), 5) == []
    assert len(store.get(["0" * 32])) == 0
    assert len(store.get([])) == 0
    assert store.delete(["0" * 32]) == 0
    assert store.delete([]) == 0
    assert list(store.batches()) == []
    store.upsert(Batch([], np.empty((0, DIM), np.float16)))
    store.optimize(force=True)
    assert store.stats().rows == store.count() == 0


def test_get_keeps_the_order_and_leaves_out_what_is_not_there(store: VectorStore) -> None:
    written = batch(range(10))
    store.upsert(written)
    asked = [item(number).id for number in (7, 99, 2, 7, 5)]
    assert ids(store.get(asked)) == [item(number).id for number in (7, 2, 5)]


def test_an_upsert_replaces_by_id(store: VectorStore) -> None:
    store.upsert(batch(range(10)))
    changed = Batch([item(4, caption="new"), item(40)], vectors(2, seed=9))
    store.upsert(changed)
    found = store.get(ids(changed))
    assert list(found.items) == list(changed.items)
    np.testing.assert_array_equal(found.vectors, changed.vectors)
    assert store.count() == 11


def test_a_deleted_picture_is_gone_and_may_come_again(store: VectorStore) -> None:
    store.upsert(batch(range(10)))
    assert store.delete([item(3).id, item(99).id]) == 1
    assert store.delete(parse("bytes >= 1008")) == 2
    assert store.count() == 7
    assert item(3).id not in {hit.item.id for hit in store.search(vectors(1)[0].astype(np.float32), 10)}
    store.upsert(batch([3]))
    assert store.count() == 8


@pytest.mark.parametrize("exact", [True, False])
def test_search_equals_sorting_every_row(store: VectorStore, exact: bool) -> None:
    written = batch(range(200))
    store.upsert(written)
    oracle = MemoryStore(DIM)
    oracle.upsert(written)
    for query in vectors(4, seed=5).astype(np.float32):
        for k, offset in ((1, 0), (10, 0), (10, 7), (500, 0), (5, 198)):
            found = store.search(query, k, exact=exact, offset=offset)
            assert found == oracle.search(query, k, offset=offset)
            assert len(found) == min(k, 200 - offset)


def test_scores_are_cosines_whatever_the_length_of_the_query(store: VectorStore) -> None:
    written = batch(range(5))
    store.upsert(written)
    query = vectors(1, seed=5)[0].astype(np.float32)
    found = {hit.item.id: hit.score for hit in store.search(7 * query, 5)}
    for one, vector in zip(written.items, written.vectors.astype(np.float64), strict=True):
        expected = float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        assert found[one.id] == pytest.approx(expected, abs=1e-6)


def test_equal_scores_are_ordered_by_id(store: VectorStore) -> None:
    same = np.repeat(vectors(1), 12, axis=0)
    store.upsert(Batch([item(number) for number in range(12)], same))
    found = [hit.item.id for hit in store.search(vectors(1, seed=1)[0].astype(np.float32), 12)]
    assert found == sorted(item(number).id for number in range(12))


FILTERS = [
    "label = cat",
    "label != cat",
    "label in (cat, dog)",
    "not label in (cat, dog)",
    'label = ""',
    'caption contains "PICTURE 1"',
    "caption contains 1 and not uri contains 5",
    'uri starts "/photos/00"',
    'uri starts "/photos/001" or width > 108',
    "width >= 105 and width < 108",
    "bytes in (1003, 1005, 99)",
    "shape = landscape",
    "shape != portrait",
    "shape in (square, landscape)",
    "tag = sea",
    'tag = "year 2"',
    "tag != sea",
    "tag = se",
    'meta.author = "Person 3"',
    'meta.author in ("Person 1", "Person 2") and meta.count = 1',
    "modified < 1970-01-05",
    "not modified < 1970-01-05",
    "modified >= 1970-01-05T00:00:00Z and modified <= 1970-01-11",
    "not (label = cat or (tag = sea and not shape = portrait))",
    f"id = {item_id('/photos/0003.jpg')}",
    f"sha256 = {5:064x}",
    'source = "/photos"',
    'source = "/elsewhere"',
    'caption = "Second of 7"',
    'caption != "Second of 7"',
    'caption in ("Picture 5", "Third, 1")',
    'caption starts "Second of 1"',
    'caption contains "THIRD"',
    "taken >= 2015-01-01 and taken < 2020-06-01",
    "not taken < 2030-01-01",
    'camera = "Canon R5"',
    "camera contains iphone",
    "camera starts Apple and not camera contains 16",
    "latitude < -20 or longitude >= 170.75",
    "not latitude > -90",
    'place near "-10.5, -59.25, 300 km"',
    'place near "0, 180, 2000 km"',
]


def test_filters_choose_what_they_say(store: VectorStore) -> None:
    written = batch(range(60))
    store.upsert(written)
    query = vectors(1, seed=5)[0].astype(np.float32)
    oracle = MemoryStore(DIM)
    oracle.upsert(written)
    sizes = set()
    for text in FILTERS:
        chosen = parse(text)
        expected = {one.id for one in written.items if matches(chosen, one.to_row())}
        sizes.add(len(expected))
        assert {row for part in store.scroll(("id",), filter_=chosen) for row in part["id"]} == expected, text
        assert store.count(chosen) == len(expected), text
        assert store.search(query, 100, filter_=chosen) == oracle.search(query, 100, filter_=chosen), text
    assert len(sizes) > 10


@pytest.mark.parametrize("field", ["uri", "caption", "label", "tag", "meta.author"])
def test_no_value_is_ever_read_as_part_of_a_query(store: VectorStore, field: str) -> None:
    """Each hostile text is stored, comes back as it was, and as a filter finds itself alone."""
    items = []
    for number, text in enumerate(HOSTILE):
        words: dict[str, dict[str, object]]
        words = {"uri": {"uri": f"/{number}/{text}"}, "tag": {"tags": (text,)}, "caption": {"caption": text}}
        words |= {"label": {"label": text}, "meta.author": {"metadata": {"author": text}}}
        items.append(item(number, **({"tags": (), "label": None, "caption": None} | words[field])))
    written = Batch(items, vectors(len(items)))
    store.upsert(written)
    for number, (one, text) in enumerate(zip(items, HOSTILE, strict=True)):
        assert store.get([one.id]).items[0] == one
        value = f"/{number}/{text}" if field == "uri" else text
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        found = [
            row for part in store.scroll(("id",), filter_=parse(f"{field} = {quoted}")) for row in part["id"]
        ]
        assert found == [one.id], value
        if field in ("uri", "caption") and text:
            folded = parse(f"{field} contains {quoted}")
            assert one.id in [row for part in store.scroll(("id",), filter_=folded) for row in part["id"]]
    assert store.delete(parse("uri = \"x' OR '1'='1\"")) == 0
    assert store.count() == len(HOSTILE)


def test_scrolling_passes_every_row_once_in_pieces(store: VectorStore) -> None:
    written = batch(range(50))
    store.upsert(written)
    pieces = list(store.scroll(("id", "width"), chunk=8))
    assert all(set(piece) == {"id", "width"} and 0 < len(piece["id"]) <= 8 for piece in pieces)
    assert sorted(one for piece in pieces for one in piece["id"]) == sorted(ids(written))
    found = {
        one.id: vector
        for part in store.batches(chunk=8)
        for one, vector in zip(part.items, part.vectors, strict=True)
    }
    for one, vector in zip(written.items, written.vectors, strict=True):
        np.testing.assert_array_equal(found[one.id], vector)


def test_nothing_changes_when_the_table_is_optimized(store: VectorStore) -> None:
    for number in range(12):
        store.upsert(batch([number], seed=number))
    store.delete([item(3).id])
    query = vectors(1, seed=5)[0].astype(np.float32)
    before = store.search(query, 20)
    store.optimize(force=True)
    assert store.search(query, 20) == before
    stats = store.stats()
    assert (stats.rows, stats.indexed, stats.unindexed, stats.fragments) == (11, False, 11, 1)
    assert stats.bytes > 0


def test_vectors_of_another_length_are_refused(store: VectorStore) -> None:
    with pytest.raises(ValueError, match=f"17 dimensions; expected {DIM}"):
        store.upsert(Batch([item(1)], np.zeros((1, 17), np.float16)))


def test_a_batch_with_an_id_twice_or_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Batch([item(1), item(1)], vectors(2))
    with pytest.raises(ValueError, match=r"float32 \(1, 16\); expected float16 \(1, dim\)"):
        Batch([item(1)], vectors(1).astype(np.float32))


def test_another_client_sees_what_was_written(request: pytest.FixtureRequest, store: VectorStore) -> None:
    kind = request.node.callspec.params["database"]
    other = request.getfixturevalue("opened")(kind)
    reader = other.open("images")
    store.upsert(batch(range(3)))
    assert reader.count() == 3
    store.delete([item(1).id])
    assert reader.count() == 2
    other.close()


def test_tables_are_made_listed_replaced_and_dropped(database: Database) -> None:
    assert database.names() == []
    database.create("one", DIM).upsert(batch(range(3)))
    database.create("two", 8)
    assert sorted(database.names()) == ["one", "two"]
    assert (database.open("one").dim, database.open("two").dim) == (DIM, 8)
    assert database.open("one").count() == 3
    assert database.create("one", DIM).count() == 0
    database.drop("one")
    database.drop("never")
    assert database.names() == ["two"]
    with pytest.raises(SearchIndexError, match="one"):
        database.open("one")


def test_the_manifest_is_replaced_as_a_whole(database: Database) -> None:
    assert database.read_manifest() is None
    database.write_manifest(b"first and longer")
    database.write_manifest(b"second")
    assert database.read_manifest() == b"second"


def test_thumbnails_are_kept_by_name(database: Database) -> None:
    assert database.thumbnail("a" * 32) is None
    data = {f"{number:032x}-{number}": b"\0" + b"%d" % number * 100 for number in range(20)}
    database.put_thumbnails(data)
    assert sorted(database.thumbnail_names()) == sorted(data)
    assert {name: database.thumbnail(name) for name in data} == data
    gone = list(data)[:5]
    database.delete_thumbnails([*gone, "f" * 32])
    assert sorted(database.thumbnail_names()) == sorted(set(data) - set(gone))


def test_readers_see_a_batch_whole_or_not_at_all(request: pytest.FixtureRequest, store: VectorStore) -> None:
    """While batches of ten replace one another, every answer has ten pictures of one generation."""
    opened, kind = request.getfixturevalue("opened"), request.node.callspec.params["database"]
    store.upsert(Batch([item(number, caption="0") for number in range(10)], vectors(10)))
    reader = opened(kind)
    table, done, seen = reader.open("images"), threading.Event(), set()
    torn = []

    def read() -> None:
        while not done.is_set():
            hits = table.search(vectors(1)[0].astype(np.float32), 20)
            generations = {hit.item.caption for hit in hits}
            seen.update(generations)
            if len(hits) != 10 or len(generations) != 1:
                torn.append(hits)

    thread = threading.Thread(target=read)
    thread.start()
    for generation in range(1, 15):
        store.upsert(
            Batch([item(number, caption=str(generation)) for number in range(10)], vectors(10, generation))
        )
    done.set()
    thread.join()
    reader.close()
    assert torn == []
    assert seen
