"""Define the interface of a store: a folder, a bucket, a PostgreSQL database, or memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diptych.search.stores.filters import Filter
from diptych.search.stores.image_rows import Batch, Hit

Query = NDArray[np.float32]

# The default number of rows that one call holds in memory.
CHUNK = 1024
# Stores round a query to float16 when they choose candidates: a few extra ones make the order at the end exact.
MARGIN = 6


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures on the storage of a table, for its administrator."""

    rows: int
    fragments: int  # pieces that a search has to visit; compaction merges them
    versions: int  # states of the table that can still be read
    unindexed: int  # rows that an approximate search compares one by one
    indexed: bool  # whether there is an approximate index
    bytes: int  # of the current state of the table


class VectorStore(Protocol):
    """One table of images and vectors of one dimension.

    What a call has written survives the end of the process. A call sees one state of the table from its beginning to
    its end.
    """

    @property
    def dim(self) -> int: ...

    def upsert(self, batch: Batch) -> None:
        """Add images, or replace those with the same id, all in one step."""
        ...

    def delete(self, which: Sequence[str] | Filter) -> int:
        """Remove images by their ids, or all that meet a filter, in one step; return their number."""
        ...

    def get(self, ids: Sequence[str]) -> Batch:
        """Return images by id, in the order of `ids`; missing ones are left out."""
        ...

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        """Return the `k` images after the first `offset` by cosine, best first; equal scores by id.

        query: (dim,), of any length but 0. Only rows that meet `filter_` count. `exact` compares with every one of
        them; else an approximate index may be used, which can miss a few. Scores are exact.
        """
        ...

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        """Yield the given columns of every row, `chunk` rows at a time, in no particular order."""
        ...

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        """Yield every image with its vector, `chunk` at a time, in no particular order."""
        ...

    def count(self, filter_: Filter | None = None) -> int:
        """Count the images, or those that meet a filter."""
        ...

    def optimize(self, *, force: bool = False) -> None:
        """Merge small pieces, update or build the approximate index, and drop states older than an hour.

        Does nothing if it would not pay, unless `force`. Searches continue meanwhile.
        """
        ...

    def stats(self) -> Stats: ...


class Database(Protocol):
    """The storage of an index: its manifest, its tables by name, and the thumbnails.

    Raises:
        SearchIndexError: any call raises it if the place cannot be read or written; the message names it.
    """

    @property
    def place(self) -> str:
        """Return the address for messages, without passwords."""
        ...

    def read_manifest(self) -> bytes | None: ...

    def write_manifest(self, text: bytes) -> None:
        """Replace the manifest in one step."""
        ...

    def create(self, name: str, dim: int) -> VectorStore:
        """Create an empty table; one of that name is replaced."""
        ...

    def open(self, name: str) -> VectorStore: ...

    def names(self) -> list[str]:
        """Return the names of all tables."""
        ...

    def drop(self, name: str) -> None:
        """Delete a table with everything that it ever held; do nothing if there is none."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Become the only writer, and create the place if it is missing.

        Raises SearchIndexError at once if there is another writer. The lock ends with its process.
        """
        ...

    def put_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None: ...

    def thumbnail(self, name: str) -> bytes | None: ...

    def delete_thumbnails(self, names: Iterable[str]) -> None: ...

    def thumbnail_names(self) -> Iterator[str]: ...

    def verify(self, names: Sequence[str]) -> int:
        """Read all of the tables, and compare them with their hashes; return the number of files.

        Raises:
            SearchIndexError: something is damaged; the message names it.
        """
        ...

    def close(self) -> None: ...
