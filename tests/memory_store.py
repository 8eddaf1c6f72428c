"""An index in the memory of this process: the oracle of the other stores. Every search compares with every row."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.data.sources.stray_bytes import stored
from diptych.errors import SearchIndexError
from diptych.search.stores.filters import Filter, Membership, matches
from diptych.search.stores.image_rows import Batch, Half, Hit, Item, Row, rank_hits
from diptych.search.stores.protocol import CHUNK, Query, Stats, VectorStore


class MemoryStore:
    """A `VectorStore` in a dictionary, which every write replaces as a whole, so that a reader keeps its state."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._rows: dict[str, tuple[Row, Half]] = {}

    def upsert(self, batch: Batch) -> None:
        if batch.vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {batch.vectors.shape[1]} dimensions; expected {self.dim}")
        rows = zip(batch.items, batch.vectors.copy(), strict=True)
        self._rows = self._rows | {item.id: (item.to_row(), vector) for item, vector in rows}

    def delete(self, which: Sequence[str] | Filter) -> int:
        filter_ = Membership("id", tuple(map(stored, which))) if isinstance(which, Sequence) else which
        kept = {key: value for key, value in self._rows.items() if not matches(filter_, value[0])}
        count = len(self._rows) - len(kept)
        self._rows = kept
        return count

    def get(self, ids: Sequence[str]) -> Batch:
        rows = self._rows
        return self._batch([rows[one] for one in dict.fromkeys(ids) if one in rows])

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        return rank_hits(self._batch(self._matching(filter_)), query, k, offset)

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        rows = self._matching(filter_)
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            yield {name: [row[name] for row, _ in part] for name in columns}

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        rows = self._matching(None)
        for start in range(0, len(rows), chunk):
            yield self._batch(rows[start : start + chunk])

    def count(self, filter_: Filter | None = None) -> int:
        return len(self._matching(filter_))

    def optimize(self, *, force: bool = False) -> None:
        pass

    def stats(self) -> Stats:
        size = sum(vector.nbytes for _, vector in self._rows.values())
        rows = len(self._rows)
        return Stats(rows, fragments=1, versions=1, unindexed=rows, indexed=False, bytes=size)

    def _matching(self, filter_: Filter | None) -> list[tuple[Row, Half]]:
        return [value for value in self._rows.values() if filter_ is None or matches(filter_, value[0])]

    def _batch(self, rows: list[tuple[Row, Half]]) -> Batch:
        vectors = np.array([vector for _, vector in rows], np.float16).reshape(len(rows), self.dim)
        return Batch([Item.from_record(str(row["record"])) for row, _ in rows], vectors)


class MemoryDatabase:
    """A `Database` that lasts as long as the object."""

    place = "memory"

    def __init__(self) -> None:
        self._manifest: bytes | None = None
        self._tables: dict[str, MemoryStore] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def read_manifest(self) -> bytes | None:
        return self._manifest

    def write_manifest(self, text: bytes) -> None:
        self._manifest = text

    def create(self, name: str, dim: int) -> VectorStore:
        self._tables[name] = MemoryStore(dim)
        return self._tables[name]

    def open(self, name: str) -> VectorStore:
        if name not in self._tables:
            raise SearchIndexError(f"{self.place}: no table {name!r}; build the index again")
        return self._tables[name]

    def names(self) -> list[str]:
        return list(self._tables)

    def drop(self, name: str) -> None:
        self._tables.pop(name, None)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise SearchIndexError(f"{self.place}: another process is writing to it; wait until it is done")
        try:
            yield
        finally:
            self._lock.release()

    def put_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None:
        self._thumbnails.update(thumbnails)

    def thumbnail(self, name: str) -> bytes | None:
        return self._thumbnails.get(name)

    def delete_thumbnails(self, names: Iterable[str]) -> None:
        for name in names:
            self._thumbnails.pop(name, None)

    def thumbnail_names(self) -> Iterator[str]:
        yield from tuple(self._thumbnails)

    def verify(self, names: Sequence[str]) -> int:
        return 0

    def close(self) -> None:
        pass
