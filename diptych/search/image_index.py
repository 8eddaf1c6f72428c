"""Search an open index by vectors, filters and ids."""

import heapq
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from diptych.errors import SearchIndexError, SettingsError
from diptych.search.manifest import Manifest, ModelIdentity, check_columns, read_manifest, require
from diptych.search.query import DEEPEST, Sort, check_page, sort_key
from diptych.search.stores.connect import connect
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import Combination, Comparison, Filter
from diptych.search.stores.image_rows import UNKNOWN_MOMENT, Batch, Hit, Item, item_id
from diptych.search.stores.protocol import CHUNK, Database, Stats, VectorStore

# The depths at which a table is searched, one after another until there are enough results. Every page of a ranking
# comes from the same few searches, because a deeper approximate search finds other results, also among the first.
_DEPTHS = (100, 500, 2_500, DEEPEST)

# An image may be replaced, and its old thumbnail deleted, between reading the row and reading the thumbnail.
_ATTEMPTS = 3

_ID = re.compile(r"[0-9a-f]{32}")
_IDS = 65_536  # ids that one step of `first` holds in memory
_SORTED_BY = Comparison("taken", "!=", UNKNOWN_MOMENT)

T = TypeVar("T")


class Index:
    """An index in a folder, a bucket or a PostgreSQL database. Safe to use from several threads.

    It follows writers at most `freshness` seconds behind them, also when a rebuilt table replaces the old one.
    """

    def __init__(
        self,
        place: str | Path | Database,
        options: Mapping[str, str] | None = None,
        *,
        freshness: float = 1.0,
    ) -> None:
        """Open the index at `place`; `options` as in `connect`.

        Raises:
            SearchIndexError: there is none, or it is damaged or of another format.
        """
        self.database = connect(place, options, freshness=freshness)
        self._freshness = freshness
        self._lock = threading.Lock()
        self._required: ModelIdentity | None = None
        self._manifest = self._read_manifest()
        self._store = self.database.open(self._manifest.current.name)
        self._looked = time.monotonic()

    @property
    def place(self) -> str:
        return self.database.place

    @property
    def manifest(self) -> Manifest:
        """Return the manifest as it was last read."""
        return self._manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the place; the last call."""
        self.database.close()

    def __len__(self) -> int:
        return self.count()

    def require(self, model: ModelIdentity) -> None:
        """Check that `model` filled the index. Raises SearchIndexError, with the command to run, if it did not.

        Later calls raise the same error if the index has been rebuilt with another model meanwhile.
        """
        require(self.place, self._manifest.current, model)
        self._required = model

    def search(
        self,
        query: NDArray[np.float32],
        *,
        count: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        filter_: Filter | str | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Return `count` results of `ranking` after the first `offset`, without those below `min_score`.

        Raises:
            SettingsError: the filter is not well formed, or `count` and `offset` are out of bounds.
        """
        check_page(count, offset)
        hits = self.ranking(query, min_score=min_score, filter_=filter_, exact=exact)
        return list(islice(hits, offset, offset + count))

    def ranking(
        self,
        query: NDArray[np.float32],
        *,
        min_score: float | None = None,
        filter_: Filter | str | None = None,
        exact: bool = False,
    ) -> Iterator[Hit]:
        """Yield the images most similar to a query, best first, none below `min_score`, at most `DEEPEST`.

        query: (dim,), unit length. Scores are exact; equal scores are ordered by id. In a large index an approximate
        search finds at least 99 in 100 of the best; `exact` compares every row. `filter_`: see `filter_syntax`. No
        image occurs twice, and equal calls give equal rankings while nobody writes. Results that an approximate search
        finds only among the 500 best come after its 100 best. Searches run as results are consumed.

        Raises:
            SettingsError: the filter is not well formed.
        """
        if query.shape != (self._manifest.current.dim,):
            raise ValueError(f"query of shape {query.shape}; expected ({self._manifest.current.dim},)")
        chosen = self._parse(filter_)
        return self._ranking(query, -1.0 if min_score is None else min_score, chosen, exact)

    def _ranking(
        self, query: NDArray[np.float32], least: float, filter_: Filter | None, exact: bool
    ) -> Iterator[Hit]:
        seen: set[str] = set()
        for depth in _DEPTHS:

            def ask(store: VectorStore, k: int = depth) -> list[Hit]:
                return store.search(query, k, filter_=filter_, exact=exact)

            hits = self._ask(ask)
            fresh = [hit for hit in hits if hit.item.id not in seen][: depth - len(seen)]
            yield from (hit for hit in fresh if hit.score >= least)
            seen.update(hit.item.id for hit in fresh)
            if len(hits) < depth or hits[-1].score < least:
                return

    def get(self, ids: Sequence[str]) -> Batch:
        """Return images with their vectors, by id, in the order of `ids`; missing ones are left out."""
        return self._ask(lambda store: store.get(ids))

    def id_of(self, name: str) -> str | None:
        """Return the id of the image with a given file, uri or id; None if it is not in the index."""
        ids = [item_id(name), item_id(os.path.abspath(name))]
        known = self.get([name, *ids] if _ID.fullmatch(name) else ids).items
        return known[0].id if known else None

    def count(self, filter_: Filter | str | None = None) -> int:
        """Count the images, or those that meet a filter."""
        chosen = self._parse(filter_)
        return self._ask(lambda store: store.count(chosen))

    def items(self, filter_: Filter | str | None = None, *, chunk: int = CHUNK) -> Iterator[Item]:
        """Yield every image, or every one that meets a filter, in no particular order, one piece at a time."""
        chosen = self._parse(filter_)
        for rows in self._ask(lambda store: _begun(store.scroll(("record",), filter_=chosen, chunk=chunk))):
            yield from map(Item.from_record, rows["record"])

    def first(
        self,
        count: int,
        *,
        offset: int = 0,
        after: str = "",
        filter_: Filter | str | None = None,
        sort: Sort | None = None,
    ) -> list[Item]:
        """List `count` images that meet a filter, after the first `offset`, ordered by id or by the time taken.

        after: an id; only images that come after this one are listed. The order of ids has no meaning, but it is
        stable: continuing after the last id of a page misses none and repeats none, whatever is written meanwhile.
        Images with equal times are ordered by id; images without a time come last.

        Raises:
            SettingsError: the filter is not well formed, the index has no image with the id `after`, or an index of an
                older format lacks a column.
        """
        chosen = self._parse(filter_)
        if sort is None:
            keys = self._keys(("id",), _both(Comparison("id", ">", after), chosen))
            ids = [id_ for (id_,) in heapq.nsmallest(offset + count, keys)]
        else:
            self._parse(_SORTED_BY)  # an index of an older format has no such column
            last = self._sort_key(after, sort) if after else None
            found = (sort_key(sort, taken, id_) for id_, taken in self._keys(("id", "taken"), chosen))
            beyond = found if last is None else (key for key in found if key > last)
            ids = [id_ for _, id_ in heapq.nsmallest(offset + count, beyond)]
        return list(self.get(ids[offset:]).items) if len(ids) > offset else []

    def _keys(self, columns: Sequence[str], filter_: Filter | None) -> Iterator[tuple[Any, ...]]:
        """Yield the given columns of every row that meets a filter."""
        pieces = self._ask(lambda store: _begun(store.scroll(columns, filter_=filter_, chunk=_IDS)))
        return chain.from_iterable(zip(*(rows[name] for name in columns), strict=True) for rows in pieces)

    def _sort_key(self, id_: str, sort: Sort) -> tuple[int, str]:
        """Return the sort key of the image with that id."""
        for found in self._keys(("id", "taken"), Comparison("id", "=", id_)):
            return sort_key(sort, found[1], found[0])
        raise SettingsError(f"after: no image of the index has the id {id_!r}; begin again without it")

    def _parse(self, filter_: Filter | str | None) -> Filter | None:
        """Return a filter as a tree; check that the index has its columns."""
        chosen = parse(filter_) if isinstance(filter_, str) else filter_
        check_columns(self.place, self._manifest, chosen)
        return chosen

    def thumbnail(self, id_: str) -> bytes | None:
        """Return the thumbnail of an image, as JPEG; None if there is no such image, or no thumbnail."""
        for _ in range(_ATTEMPTS):
            items = self.get([id_]).items
            if not items or items[0].thumbnail is None:
                return None
            if (data := self.database.thumbnail(items[0].thumbnail)) is not None:
                return data
        return None

    def stats(self) -> Stats:
        """Return figures on the storage of the table."""
        return self._ask(lambda store: store.stats())

    def _ask(self, question: Callable[[VectorStore], T]) -> T:
        """Call `question` on the current table; if it has been replaced meanwhile, call it again on the new one."""
        if time.monotonic() - self._looked > self._freshness:
            self._look()
        store = self._store
        try:
            return question(store)
        except SearchIndexError:
            self._look()
            if self._store is store:
                raise
            return question(self._store)

    def _look(self) -> None:
        """Read the manifest again, and open a new table if it names one."""
        with self._lock:
            manifest = self._read_manifest()
            if self._required is not None:
                require(self.place, manifest.current, self._required)
            if manifest.current.name != self._manifest.current.name:
                self._store = self.database.open(manifest.current.name)
            self._manifest, self._looked = manifest, time.monotonic()

    def _read_manifest(self) -> Manifest:
        manifest = read_manifest(self.database)
        if manifest is None:
            raise SearchIndexError(
                f"{self.place}: no index here; build one: diptych index SOURCE --index {self.place}"
            )
        return manifest


def _both(first: Filter, second: Filter | None) -> Filter:
    return first if second is None else Combination("all", (first, second))


def _begun(pieces: Iterator[T]) -> Iterator[T]:
    """Read the first of the pieces at once, which shows whether the table can be read; yield all of them."""
    first = list(islice(pieces, 1))
    return chain(first, pieces)
