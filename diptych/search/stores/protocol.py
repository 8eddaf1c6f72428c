"""What an index asks of the place that keeps it: a folder, a bucket, a PostgreSQL database, or memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diptych.search.stores.filters import Filter
from diptych.search.stores.image_rows import Batch, Hit

Query = NDArray[np.float32]

# Rows that one call brings into memory, unless told otherwise.
CHUNK = 1024
# Stores round a query to float16 when they choose candidates: a few more make sure of the order at the edge.
MARGIN = 6


@dataclass(frozen=True, slots=True)
class Stats:
    """How a table lies in its place, for people who look after it."""

    rows: int
    fragments: int  # pieces that a search has to visit; compaction merges them
    versions: int  # states of the table that can still be read
    unindexed: int  # rows that an approximate search compares one by one
    indexed: bool  # whether there is an approximate index at all
    bytes: int  # of the table as it is now


class VectorStore(Protocol):
    """One table of pictures and vectors of one length. What a call has written is kept when it returns, however
    the process ends; a call sees one state of the table from its beginning to its end."""

    @property
    def dim(self) -> int: ...

    def upsert(self, batch: Batch) -> None:
        """Add pictures, or replace those with the same id, all in one step."""
        ...

    def delete(self, which: Sequence[str] | Filter) -> int:
        """Remove pictures by their ids, or all that meet a filter, in one step; how many there were."""
        ...

    def get(self, ids: Sequence[str]) -> Batch:
        """Pictures by id, in the order of `ids`; those that are not there are left out."""
        ...

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        """The `k` pictures after the first `offset` by cosine, best first; of equal scores by id.

        query: (dim,), of any length but 0. Of the rows that meet `filter_`. `exact` compares with every one of
        them; otherwise an index may be used, where there is one, which can miss a few. Scores are exact.
        """
        ...

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        """Those columns of every row, `chunk` rows at a time, in no particular order."""
        ...

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        """Every picture with its vector, `chunk` at a time, in no particular order."""
        ...

    def count(self, filter_: Filter | None = None) -> int:
        """How many pictures there are, or how many meet a filter."""
        ...

    def optimize(self, *, force: bool = False) -> None:
        """Merge small pieces, bring the index up to date (or build it, once there is enough for one), drop
        states of the table that nobody has read for an hour. Does nothing where it would not pay, unless
        `force`. Searches go on meanwhile."""
        ...

    def stats(self) -> Stats: ...


class Database(Protocol):
    """The place of an index: its manifest, its tables by name, the thumbnails beside them.

    Raises:
        SearchIndexError: from any call, when the place cannot be read or written; the message names it.
    """

    @property
    def place(self) -> str:
        """For messages; without passwords."""
        ...

    def read_manifest(self) -> bytes | None: ...

    def write_manifest(self, text: bytes) -> None:
        """Replace the manifest in one step."""
        ...

    def create(self, name: str, dim: int) -> VectorStore:
        """An empty table; one of that name is replaced."""
        ...

    def open(self, name: str) -> VectorStore: ...

    def names(self) -> list[str]:
        """Of every table."""
        ...

    def drop(self, name: str) -> None:
        """Delete a table with everything that it ever held; nothing, where there is none."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer; the place is made when it is missing. SearchIndexError at once, when there is
        another writer. The lock goes with its process, however that ends."""
        ...

    def put_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None: ...

    def thumbnail(self, name: str) -> bytes | None: ...

    def delete_thumbnails(self, names: Iterable[str]) -> None: ...

    def thumbnail_names(self) -> Iterator[str]: ...

    def verify(self, names: Sequence[str]) -> int:
        """Read all of those tables and compare with what was written; how many files that were.

        Raises:
            SearchIndexError: something is not as it was written; the message names it.
        """
        ...

    def close(self) -> None: ...
