"""Store an index in a folder or a bucket, as tables of LanceDB. Only this file and `lance_parts.py` call LanceDB.

LanceDB has threads of its own, which a forked child would lack, so processes that use it must be spawned.
"""

import asyncio
import contextlib
import dataclasses
import shutil
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from diptych.data.sources.stray_bytes import stored, utf8_address
from diptych.errors import DiptychError, MissingExtraError, SearchIndexError
from diptych.search.stores.filters import (
    ColumnComparison,
    Combination,
    Comparison,
    Containment,
    Filter,
    Membership,
    Negation,
)
from diptych.search.stores.image_rows import COLUMNS, Batch, Hit, Item, rank_hits
from diptych.search.stores.ledger import Ledger
from diptych.search.stores.protocol import CHUNK, MARGIN, Query, Stats, VectorStore
from diptych.search.stores.small_files import THUMBNAILS, BucketFiles, Files, LocalFiles, thumbnail_path

try:
    import lancedb
    import pyarrow as pa
    from lancedb import expr
    from lancedb.index import BTree
except ImportError:
    raise MissingExtraError("lancedb", "search", "a search index in a folder or a bucket") from None

if TYPE_CHECKING:
    from lancedb.expr import Expr

T = TypeVar("T")

MANIFEST = "index.json"

# Up to this size a search compares with every row: benchmarks/vector_index.py has the times.
EXACT_ROWS = 20_000
# The rows in a partition of the approximate index, and the partitions that a search visits.
PARTITION_ROWS = 1024
PROBES = 80
# The candidates per result, found with 8 bits per dimension, that are compared in float16.
REFINE = 2
# The growth factor of a table after which its index is trained again.
OUTGROWN = 2
# A table may have this many pieces before they are merged, and more if it is large, because merging it costs more.
FEW_FRAGMENTS = 64
ROWS_A_FRAGMENT = 16_384
# Old versions are deleted after this time. A reader moves to the latest one far more often.
KEEP_VERSIONS = timedelta(hours=1)
# The name of an index ends in the number of rows that it was trained for.
_INDEX = "vector_of_"

_TYPES = {"text": pa.string(), "int32": pa.int32(), "int64": pa.int64()}


class _Loop:
    """A thread that runs LanceDB's coroutines: one hand-over per call, where its own blocking calls need six."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result. Its work continues if the wait is interrupted."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="lancedb", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


_LOOP = _Loop()


class LanceStore:
    """A `VectorStore` in one LanceDB table. ledger: the hashes of its files, if they lie on a disk."""

    def __init__(self, table: Any, dim: int, place: str, ledger: Ledger | None) -> None:
        self._table, self.dim, self._place, self._ledger = table, dim, place, ledger

    def upsert(self, batch: Batch) -> None:
        if batch.vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {batch.vectors.shape[1]} dimensions; expected {self.dim}")
        if not len(batch):
            return
        rows = [item.to_row() for item in batch.items]
        columns = [pa.array([row[name] for row in rows], _TYPES[kind]) for name, kind in COLUMNS.items()]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.ravel()), self.dim)
        table = pa.table([*columns, vectors], schema=_schema(self.dim))
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        with self._asking():
            _LOOP.run(merge.execute(table))
            self._record()

    def delete(self, which: Sequence[str] | Filter) -> int:
        if isinstance(which, Sequence) and not which:
            return 0
        filter_ = Membership("id", tuple(map(stored, which))) if isinstance(which, Sequence) else which
        with self._asking():
            count: int = _LOOP.run(self._table.delete(_compile(filter_))).num_deleted_rows
            self._record()
        return count

    def get(self, ids: Sequence[str]) -> Batch:
        if not ids:
            return Batch([], np.empty((0, self.dim), np.float16))
        chosen = _compile(Membership("id", tuple(map(stored, ids))))
        with self._asking():
            found = _LOOP.run(self._table.query().where(chosen).select(["record", "vector"]).to_arrow())
            batch = _batch(found, self.dim)
        places = {item.id: place for place, item in enumerate(batch.items)}
        order = [places[one] for one in dict.fromkeys(ids) if one in places]
        return Batch([batch.items[place] for place in order], batch.vectors[order])

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        with self._asking():
            question = self._table.query()
            if filter_ is not None:
                question = question.where(_compile(filter_))
            question = question.nearest_to(query.astype(np.float32)).column("vector").distance_type("cosine")
            question = question.limit(offset + k + MARGIN).select(["record", "vector", "_distance"])
            if exact:
                question = question.bypass_vector_index()
            elif filter_ is None:
                question = question.nprobes(PROBES).refine_factor(REFINE)
            else:
                # Any partition may hold the few rows that meet the filter; 0 means no limit.
                question = question.nprobes(PROBES).maximum_nprobes(0).refine_factor(REFINE)
            batch = _batch(_LOOP.run(question.to_arrow()), self.dim)
        return rank_hits(batch, query, k, offset)

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        for found in self._stream(columns, filter_, chunk):
            yield {name: found.column(name).to_pylist() for name in columns}

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        for found in self._stream(["record", "vector"], None, chunk):
            yield _batch(found, self.dim)

    def count(self, filter_: Filter | None = None) -> int:
        if filter_ is None:
            with self._asking():
                count: int = _LOOP.run(self._table.count_rows())
            return count
        return sum(found.num_rows for found in self._stream(["id"], filter_, 1 << 16))

    def optimize(self, *, force: bool = False) -> None:
        now = self._stats_without_versions()
        wants_index = now.rows >= EXACT_ROWS
        crowded = now.fragments > FEW_FRAGMENTS + now.rows // ROWS_A_FRAGMENT
        behind = now.unindexed >= EXACT_ROWS
        if not (force or crowded or behind or self._is_stale()):
            return
        if self._ledger is not None:
            self._ledger.cleaning()
        with self._asking():
            _LOOP.run(self._table.optimize(cleanup_older_than=KEEP_VERSIONS))
            if wants_index:
                self._train(now.rows)
        if self._ledger is not None:
            self._ledger.cleaned()

    def stats(self) -> Stats:
        with self._asking():
            versions = len(_LOOP.run(self._table.list_versions()))
        return dataclasses.replace(self._stats_without_versions(), versions=versions)

    def _stats_without_versions(self) -> Stats:
        """Return `stats` without the number of versions, which is slow to find."""
        with self._asking():
            _LOOP.run(self._table.checkout_latest())
            found = _LOOP.run(self._table.stats())
            name = self._index_name()
            index = None if name is None else _LOOP.run(self._table.index_stats(name))
        return Stats(
            rows=found["num_rows"],
            fragments=found["fragment_stats"]["num_fragments"],
            versions=0,
            unindexed=found["num_rows"] if index is None else index.num_unindexed_rows,
            indexed=index is not None,
            bytes=found["total_bytes"],
        )

    def _is_stale(self) -> bool:
        """Return whether a version is older than twice `KEEP_VERSIONS`: so the table is cleaned once in that time."""
        with self._asking():
            *older, _ = _LOOP.run(self._table.list_versions())
        limit = datetime.now() - 2 * KEEP_VERSIONS  # LanceDB gives local times
        return any(version["timestamp"] < limit for version in older)

    def _train(self, rows: int) -> None:
        """Build the approximate index if there is none, or if it was built for a much smaller table."""
        old = self._index_name()
        if old is not None and rows < OUTGROWN * int(old.removeprefix(_INDEX)):
            return
        # Imported here, because the import is slow and few users ever train an index.
        from diptych.search.stores.lance_parts import build_parts  # noqa: PLC0415

        dataset = _LOOP.run(self._table.to_lance())
        build_parts(dataset, "vector", f"{_INDEX}{rows}", max(1, rows // PARTITION_ROWS))
        _LOOP.run(self._table.checkout_latest())
        if old is None:
            _LOOP.run(self._table.create_index("id", config=BTree(), name="id"))
        else:
            _LOOP.run(self._table.drop_index(old))

    def _index_name(self) -> str | None:
        names = [
            found.name for found in _LOOP.run(self._table.list_indices()) if found.name.startswith(_INDEX)
        ]
        return max(names, key=lambda name: int(name.removeprefix(_INDEX)), default=None)

    def _stream(self, columns: Sequence[str], filter_: Filter | None, chunk: int) -> Iterator[Any]:
        with self._asking():
            question = self._table.query().select(list(columns))
            if filter_ is not None:
                question = question.where(_compile(filter_))
            pieces = _LOOP.run(question.to_batches(max_batch_length=chunk))
            while (found := _LOOP.run(_next(pieces))) is not None:
                yield found

    def _record(self) -> None:
        if self._ledger is not None:
            self._ledger.record()

    def _asking(self) -> contextlib.AbstractContextManager[None]:
        return _asking(self._place)


class LanceDatabase:
    """A `Database` in a folder, or in objects under `s3://bucket/prefix`.

    options: LanceDB's storage options (aws_endpoint, aws_access_key_id, ...); missing ones come from the environment.
    freshness: seconds after which readers see what others have written.
    """

    def __init__(
        self, place: str | Path, options: Mapping[str, str] | None = None, *, freshness: float = 1.0
    ) -> None:
        self.place = str(place)
        self._is_bucket = self.place.startswith("s3://")
        self._folder = Path(place)
        self._files: Files = (
            BucketFiles(self.place.rstrip("/"), options or {})
            if self._is_bucket
            else LocalFiles(self._folder)
        )
        self._options, self._freshness = dict(options or {}), timedelta(seconds=freshness)
        self._connection: Any = None
        self._addresses = contextlib.ExitStack()

    def read_manifest(self) -> bytes | None:
        return self._files.read(MANIFEST)

    def write_manifest(self, text: bytes) -> None:
        self._files.write(MANIFEST, text)

    def create(self, name: str, dim: int) -> VectorStore:
        self.drop(name)
        ledger = self._ledger(name)
        with _asking(self.place):
            table = _LOOP.run(self._connect().create_table(name, schema=_schema(dim)))
            if ledger is not None:
                ledger.record()
        return LanceStore(table, dim, self.place, ledger)

    def open(self, name: str) -> VectorStore:
        with _asking(self.place):
            table = _LOOP.run(self._connect().open_table(name))
            dim: int = _LOOP.run(table.schema()).field("vector").type.list_size
        return LanceStore(table, dim, self.place, self._ledger(name))

    def names(self) -> list[str]:
        with _asking(self.place):
            return list(_LOOP.run(self._connect().list_tables()).tables)

    def drop(self, name: str) -> None:
        with _asking(self.place):
            if name in self.names():
                _LOOP.run(self._connect().drop_table(name))
        if not self._is_bucket:
            # A killed drop leaves a folder that is no longer a table.
            shutil.rmtree(self._folder / f"{name}.lance", ignore_errors=True)
        ledger = self._ledger(name)
        if ledger is not None:
            ledger.remove()

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return self._files.writing()

    def put_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None:
        self._files.put({thumbnail_path(name): data for name, data in thumbnails.items()})

    def thumbnail(self, name: str) -> bytes | None:
        return self._files.read(thumbnail_path(name))

    def delete_thumbnails(self, names: Iterable[str]) -> None:
        self._files.delete(map(thumbnail_path, names))

    def thumbnail_names(self) -> Iterator[str]:
        for path in self._files.names(THUMBNAILS):
            yield path.rpartition("/")[2].removesuffix(".jpg")

    def verify(self, names: Sequence[str]) -> int:
        count = 0
        for name in names:
            ledger = self._ledger(name)
            count += 0 if ledger is None else ledger.verify()
            for _ in self.open(name).batches():
                pass
        return count

    def close(self) -> None:
        self._connection = None
        self._addresses.close()

    def _connect(self) -> Any:
        if self._connection is None:
            self._connection = _LOOP.run(
                lancedb.connect_async(
                    self._addresses.enter_context(utf8_address(self.place)),
                    storage_options=self._options or None,
                    read_consistency_interval=self._freshness,
                )
            )
        return self._connection

    def _ledger(self, name: str) -> Ledger | None:
        return None if self._is_bucket else Ledger(self._folder / f"{name}.lance")


def _schema(dim: int) -> Any:
    fields = [pa.field(name, _TYPES[kind], nullable=False) for name, kind in COLUMNS.items()]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float16(), dim), nullable=False)])


async def _next(pieces: Any) -> Any:
    """Return the next piece of a stream, or None at its end."""
    return await anext(pieces, None)


def _batch(found: Any, dim: int) -> Batch:
    """Convert a table or a batch of records with the columns `record` and `vector`, as LanceDB returns them."""
    vectors = found.column("vector")
    chunks = vectors.chunks if isinstance(vectors, pa.ChunkedArray) else [vectors]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in chunks]
    items = [Item.from_record(record) for record in found.column("record").to_pylist()]
    return Batch(items, np.concatenate([*parts, np.empty((0, dim), np.float16)]))


def _compile(filter_: Filter) -> "Expr":
    """Turn a filter into an expression object, so that a value never becomes text of a query."""
    match filter_:
        case Comparison(column, operator, value):
            return _compare(expr.col(column), operator, expr.lit(value))
        case ColumnComparison(left, operator, right):
            return _compare(expr.col(left), operator, expr.col(right))
        case Membership(column, values):
            return expr.col(column).isin(values)
        case Containment(column, text):
            return expr.col(column).contains(expr.lit(text))
        case Combination(how, parts):
            whole = _compile(parts[0])
            for part in parts[1:]:
                whole = whole & _compile(part) if how == "all" else whole | _compile(part)
            return whole
        case Negation(part):
            return ~_compile(part)


def _compare(left: "Expr", operator: str, right: "Expr") -> "Expr":
    match operator:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
    return left >= right


@contextlib.contextmanager
def _asking(place: str) -> Iterator[None]:
    """Turn errors of LanceDB into `SearchIndexError`: damaged files raise any type, panics included."""
    try:
        yield
    except DiptychError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise SearchIndexError(
            f"{place}: {reason}; check it with: diptych verify {place}; if it is damaged, restore it from a copy or "
            "build the index again in another folder"
        ) from error
