"""An index in a folder or a bucket, as tables of LanceDB. Every call of LanceDB stands in this file.

LanceDB has threads of its own, which a forked child would lack: processes that use it must be spawned.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, MissingExtraError, SearchIndexError
from diptych.search.stores.files import THUMBNAILS, BucketFiles, Files, LocalFiles, thumbnail_path
from diptych.search.stores.filters import Compare, CompareColumns, Contains, Filter, Not, OneOf, Together
from diptych.search.stores.ledger import Ledger
from diptych.search.stores.protocol import CHUNK, MARGIN, Query, Stats, VectorStore
from diptych.search.stores.rows import COLUMNS, TOLD, Batch, Hit, Item, ranked, stored

try:
    import lancedb
    import pyarrow as pa  # type: ignore[import-untyped]
    from lancedb import expr
    from lancedb.index import BTree, IvfSq
except ImportError:
    raise MissingExtraError("lancedb", "search", "a search index in a folder or a bucket") from None

if TYPE_CHECKING:
    from lancedb.expr import Expr

MANIFEST = "index.json"

# Up to here a search compares with every row: benchmarks/vector_index.py has the times.
EXACT_ROWS = 20_000
# Rows in a part of the approximate index, and parts that a search looks into.
PARTITION_ROWS = 8192
PROBES = 24
# Candidates that are compared in float16 for each result, after 8 bits a dimension have found them.
REFINE = 4
# An index is trained again when the table has grown by this factor.
OUTGROWN = 2
# Pieces of a table that are borne before they are merged: more in a larger one, whose merging costs more.
FEW_FRAGMENTS = 64
ROWS_A_FRAGMENT = 16_384
# Old versions go after this time. A reader catches up with the latest one far more often.
KEEP_VERSIONS = timedelta(hours=1)
# An index bears the number of rows that it was trained for in its name.
_INDEX = "vector_of_"

_TYPES = {"text": pa.string(), "int32": pa.int32(), "int64": pa.int64()}


class LanceStore:
    """A `VectorStore`: one LanceDB table. `ledger` keeps the hashes of its files, where they lie on a disk."""

    def __init__(self, table: Any, place: str, ledger: Ledger | None) -> None:
        self._table, self._place, self._ledger = table, place, ledger
        self.dim: int = table.schema.field("vector").type.list_size

    def upsert(self, batch: Batch) -> None:
        if batch.vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {batch.vectors.shape[1]} dimensions; expected {self.dim}")
        if not len(batch):
            return
        rows = [item.to_row() for item in batch.items]
        columns = [pa.array([row[name] for row in rows], _TYPES[kind]) for name, kind in COLUMNS.items()]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.ravel()), self.dim)
        table = pa.table([*columns, vectors], schema=_schema(self.dim))
        with _asking(self._place):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(table)
        self._record()

    def delete(self, which: Sequence[str] | Filter) -> int:
        if isinstance(which, Sequence) and not which:
            return 0
        filter_ = OneOf("id", tuple(map(stored, which))) if isinstance(which, Sequence) else which
        with _asking(self._place):
            count: int = self._table.delete(_compiled(filter_)).num_deleted_rows
        self._record()
        return count

    def get(self, ids: Sequence[str]) -> Batch:
        if not ids:
            return Batch([], np.empty((0, self.dim), np.float16))
        filter_ = OneOf("id", tuple(map(stored, ids)))
        with _asking(self._place):
            found = (
                self._table.search()
                .where(_compiled(filter_))
                .select([*TOLD, "vector"])
                .limit(len(ids))
                .to_arrow()
            )
        batch = _batch(found, self.dim)
        places = {item.id: place for place, item in enumerate(batch.items)}
        order = [places[one] for one in dict.fromkeys(ids) if one in places]
        return Batch([batch.items[place] for place in order], batch.vectors[order])

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        fetched = offset + k + MARGIN
        with _asking(self._place):
            question = self._table.search(query.astype(np.float32), vector_column_name="vector")
            question = question.distance_type("cosine").limit(fetched).select([*TOLD, "vector", "_distance"])
            # More parts are visited where a filter leaves too few candidates in these.
            question = question.minimum_nprobes(PROBES).maximum_nprobes(0).refine_factor(REFINE)
            if exact:
                question = question.bypass_vector_index()
            if filter_ is not None:
                question = question.where(_compiled(filter_), prefilter=True)
            batch = _batch(question.to_arrow(), self.dim)
        return ranked(batch, query, k, offset)

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        for found in self._stream(columns, filter_, chunk):
            yield {name: found.column(name).to_pylist() for name in columns}

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        for found in self._stream([*TOLD, "vector"], None, chunk):
            yield _batch(found, self.dim)

    def count(self, filter_: Filter | None = None) -> int:
        if filter_ is None:
            with _asking(self._place):
                count: int = self._table.count_rows()
            return count
        return sum(found.num_rows for found in self._stream(["id"], filter_, 1 << 16))

    def optimize(self, *, force: bool = False) -> None:
        now = self._lies()
        wants_index = now.rows >= EXACT_ROWS
        crowded = now.fragments > FEW_FRAGMENTS + now.rows // ROWS_A_FRAGMENT
        behind = now.unindexed >= EXACT_ROWS
        if not (force or crowded or behind):
            return
        if self._ledger is not None:
            self._ledger.cleaning()
        with _asking(self._place):
            self._table.optimize(cleanup_older_than=KEEP_VERSIONS)
            if wants_index:
                self._train(now.rows)
        if self._ledger is not None:
            self._ledger.cleaned()

    def stats(self) -> Stats:
        with _asking(self._place):
            versions = len(self._table.list_versions())
        return dataclasses.replace(self._lies(), versions=versions)

    def _lies(self) -> Stats:
        """`stats` but for the versions, whose number takes long to find."""
        with _asking(self._place):
            self._table.checkout_latest()
            found = self._table.stats()
            name = self._index_name()
            index = None if name is None else self._table.index_stats(name)
        return Stats(
            rows=found["num_rows"],
            fragments=found["fragment_stats"]["num_fragments"],
            versions=0,
            unindexed=found["num_rows"] if index is None else index.num_unindexed_rows,
            indexed=index is not None,
            bytes=found["total_bytes"],
        )

    def _train(self, rows: int) -> None:
        """Build the approximate index, where there is none, or one whose parts were cut for a smaller table."""
        old = self._index_name()
        if old is not None and rows < OUTGROWN * int(old.removeprefix(_INDEX)):
            return
        parts = IvfSq(distance_type="cosine", num_partitions=max(1, rows // PARTITION_ROWS))
        self._table.create_index("vector", config=parts, name=f"{_INDEX}{rows}")
        if old is None:
            self._table.create_index("id", config=BTree(), name="id")
        else:
            self._table.drop_index(old)

    def _index_name(self) -> str | None:
        names = [found.name for found in self._table.list_indices() if found.name.startswith(_INDEX)]
        return max(names, key=lambda name: int(name.removeprefix(_INDEX)), default=None)

    def _stream(self, columns: Sequence[str], filter_: Filter | None, chunk: int) -> Iterator[Any]:
        with _asking(self._place):
            question = self._table.search().select(list(columns))
            if filter_ is not None:
                question = question.where(_compiled(filter_))
            yield from question.to_batches(chunk)

    def _record(self) -> None:
        if self._ledger is not None:
            self._ledger.record()


class LanceDatabase:
    """A `Database`: a folder, or objects under `s3://bucket/prefix`.

    `options` are LanceDB's storage options (aws_endpoint, aws_access_key_id, ...); what is missing comes from the
    environment. Readers see what others have written after `freshness` seconds.
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

    def read_manifest(self) -> bytes | None:
        return self._files.read(MANIFEST)

    def write_manifest(self, text: bytes) -> None:
        self._files.write(MANIFEST, text)

    def create(self, name: str, dim: int) -> VectorStore:
        with _asking(self.place):
            self.drop(name)
            table = self._connected().create_table(name, schema=_schema(dim))
        ledger = self._ledger(name)
        if ledger is not None:
            ledger.record()
        return LanceStore(table, self.place, ledger)

    def open(self, name: str) -> VectorStore:
        with _asking(self.place):
            return LanceStore(self._connected().open_table(name), self.place, self._ledger(name))

    def names(self) -> list[str]:
        with _asking(self.place):
            return list(self._connected().list_tables().tables)

    def drop(self, name: str) -> None:
        with _asking(self.place):
            if name in self.names():
                self._connected().drop_table(name)
        if not self._is_bucket:
            # A killed drop leaves a folder that is no table any more.
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
            yield path.rpartition("/")[2].removesuffix(".webp")

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

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = lancedb.connect(
                self.place, storage_options=self._options or None, read_consistency_interval=self._freshness
            )
        return self._connection

    def _ledger(self, name: str) -> Ledger | None:
        return None if self._is_bucket else Ledger(self._folder / f"{name}.lance")


def _schema(dim: int) -> Any:
    fields = [pa.field(name, _TYPES[kind], nullable=False) for name, kind in COLUMNS.items()]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float16(), dim), nullable=False)])


def _batch(found: Any, dim: int) -> Batch:
    """Rows as LanceDB returns them: a table, or a batch of records, with the columns of `TOLD` and `vector`."""
    columns = {name: found.column(name).to_pylist() for name in TOLD}
    items = [Item.from_row({name: columns[name][place] for name in TOLD}) for place in range(found.num_rows)]
    vectors = found.column("vector")
    chunks = vectors.chunks if isinstance(vectors, pa.ChunkedArray) else [vectors]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in chunks]
    return Batch(items, np.concatenate([*parts, np.empty((0, dim), np.float16)]))


def _compiled(filter_: Filter) -> "Expr":
    """A filter as an expression object: a value never becomes text of a query."""
    match filter_:
        case Compare(column, operator, value):
            return _compared(expr.col(column), operator, expr.lit(value))
        case CompareColumns(left, operator, right):
            return _compared(expr.col(left), operator, expr.col(right))
        case OneOf(column, values):
            return expr.col(column).isin(values)
        case Contains(column, text):
            return expr.col(column).contains(expr.lit(text))
        case Together(how, parts):
            whole = _compiled(parts[0])
            for part in parts[1:]:
                whole = whole & _compiled(part) if how == "all" else whole | _compiled(part)
            return whole
        case Not(part):
            return ~_compiled(part)


def _compared(left: "Expr", operator: str, right: "Expr") -> "Expr":
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
    """Turns what LanceDB raises into `SearchIndexError`: on damaged files that is any type, panics included."""
    try:
        yield
    except DiptychError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise SearchIndexError(
            f"{place}: {reason}; check it with: diptych verify {place}; where it is damaged, restore it from a copy or "
            "build the index again in another folder"
        ) from error
