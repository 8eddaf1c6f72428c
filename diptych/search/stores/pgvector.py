"""Store an index in a PostgreSQL database with the extension pgvector: `postgresql://user@host/database#name`.

An index is a schema, named by the part after `#` (default "diptych"): a table for the manifest, one for the thumbnails,
and one for each table of images. Values reach the server as bound parameters, names as quoted identifiers.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from diptych.data.sources.stray_bytes import stored
from diptych.errors import MissingExtraError, SearchIndexError
from diptych.search.stores.filters import (
    ColumnComparison,
    Combination,
    Comparison,
    Containment,
    Filter,
    Membership,
    Negation,
)
from diptych.search.stores.image_rows import COLUMNS, Batch, Half, Hit, Item, rank_hits
from diptych.search.stores.protocol import CHUNK, MARGIN, Query, Stats, VectorStore

try:
    import psycopg
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector
    from psycopg import sql
except ImportError:
    raise MissingExtraError("psycopg", "postgres", "a search index in PostgreSQL") from None

# Up to this size a search compares with every row.
EXACT_ROWS = 20_000
# The candidates that a search of the graph keeps: pgvector's least and most, and the number per result.
_LEAST_CANDIDATES, _MOST_CANDIDATES, _CANDIDATES_A_RESULT = 100, 1000, 4
_TYPES = {"text": 'text COLLATE "C"', "int32": "integer", "int64": "bigint"}
_OPERATORS = {"=": sql.SQL("="), "!=": sql.SQL("<>")} | {
    sign: sql.SQL(sign) for sign in ("<", "<=", ">", ">=")
}
_OTHERS = ("manifest", "thumbnails")


class PostgresStore:
    """A `VectorStore` in one table, with a graph of neighbours (HNSW) if it is large."""

    def __init__(self, database: "PostgresDatabase", schema: str, name: str, dim: int) -> None:
        self._database, self._name, self.dim = database, name, dim
        self._table = sql.Identifier(schema, name)
        self._schema = schema

    def upsert(self, batch: Batch) -> None:
        if batch.vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {batch.vectors.shape[1]} dimensions; expected {self.dim}")
        names = [*COLUMNS, "vector"]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        places = sql.SQL(", ").join([sql.Placeholder()] * len(names))
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in names
        )
        command = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
            self._table, columns, places, changes
        )
        rows = [
            [*(row[name] for name in COLUMNS), HalfVector(vector)]
            for row, vector in zip((item.to_row() for item in batch.items), batch.vectors, strict=True)
        ]
        with self._database.asking() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(command, rows)

    def delete(self, which: Sequence[str] | Filter) -> int:
        filter_ = Membership("id", tuple(map(stored, which))) if isinstance(which, Sequence) else which
        condition, values = _compile(filter_)
        command = sql.SQL("DELETE FROM {} WHERE {}").format(self._table, condition)
        with self._database.asking() as connection:
            return connection.execute(command, values).rowcount

    def get(self, ids: Sequence[str]) -> Batch:
        command = sql.SQL("SELECT record, vector FROM {} WHERE id = ANY(%s)").format(self._table)
        with self._database.asking() as connection:
            found = self._batch(connection.execute(command, [list(map(stored, ids))]).fetchall())
        places = {item.id: place for place, item in enumerate(found.items)}
        order = [places[one] for one in dict.fromkeys(ids) if one in places]
        return Batch([found.items[place] for place in order], found.vectors[order])

    def search(
        self, query: Query, k: int, *, filter_: Filter | None = None, exact: bool = False, offset: int = 0
    ) -> list[Hit]:
        wanted = offset + k + MARGIN
        rows = self._nearest(query, wanted, filter_, exact)
        if len(rows) < wanted and not exact and filter_ is not None:
            # The search of the graph gives up if few of the visited images meet the filter.
            rows = self._nearest(query, wanted, filter_, True)
        return rank_hits(self._batch(rows), query, k, offset)

    def scroll(
        self, columns: Sequence[str], *, filter_: Filter | None = None, chunk: int = CHUNK
    ) -> Iterator[dict[str, list[Any]]]:
        for rows in self._stream(columns, filter_, chunk):
            yield {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}

    def batches(self, *, chunk: int = CHUNK) -> Iterator[Batch]:
        for rows in self._stream(["record", "vector"], None, chunk):
            yield self._batch(rows)

    def count(self, filter_: Filter | None = None) -> int:
        condition, values = _where(filter_)
        command = sql.SQL("SELECT count(*) FROM {}{}").format(self._table, condition)
        with self._database.asking() as connection:
            return int(_first(connection.execute(command, values)))

    def optimize(self, *, force: bool = False) -> None:
        before = self.stats()
        with self._database.asking() as connection:
            if before.rows >= EXACT_ROWS and not before.indexed:
                command = "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector halfvec_cosine_ops)"
                name = sql.Identifier(self._index)
                connection.execute(sql.SQL(command).format(name, self._table))
            if force:
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(self._table))

    def stats(self) -> Stats:
        quoted = f'"{self._schema}"."{self._name}"'.replace("%", "%%")
        with self._database.asking() as connection:
            size = _first(connection.execute("SELECT pg_total_relation_size(to_regclass(%s))", [quoted]))
            found = connection.execute(
                "SELECT 1 FROM pg_indexes WHERE schemaname = %s AND indexname = %s",
                [self._schema, self._index],
            ).fetchone()
        rows = self.count()
        return Stats(
            rows=rows,
            fragments=1,
            versions=1,
            unindexed=0 if found else rows,
            indexed=found is not None,
            bytes=int(size or 0),
        )

    @property
    def _index(self) -> str:
        return f"{self._name}-vector"

    def _nearest(self, query: Query, count: int, filter_: Filter | None, exact: bool) -> list[Any]:
        condition, values = _where(filter_)
        command = sql.SQL("SELECT record, vector FROM {}{} ORDER BY vector <=> %s LIMIT %s").format(
            self._table, condition
        )
        candidates = min(_MOST_CANDIDATES, max(_LEAST_CANDIDATES, _CANDIDATES_A_RESULT * count))
        settings = {"hnsw.ef_search": str(candidates), "hnsw.iterative_scan": "strict_order"}
        if exact:
            settings = {"enable_indexscan": "off"}
        with self._database.asking() as connection, connection.transaction():
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            return connection.execute(command, [*values, HalfVector(query), count]).fetchall()

    def _stream(self, columns: Sequence[str], filter_: Filter | None, chunk: int) -> Iterator[list[Any]]:
        """Yield rows on a separate connection, because other queries run between two pieces."""
        condition, values = _where(filter_)
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        command = sql.SQL("SELECT {} FROM {}{}").format(names, self._table, condition)
        with (
            self._database.connected() as connection,
            connection.transaction(),
            connection.cursor("scroll") as cursor,
        ):
            cursor.execute(command, values)
            while rows := cursor.fetchmany(chunk):
                yield rows

    def _batch(self, rows: Sequence[Any]) -> Batch:
        vectors: Half = np.array([vector.to_numpy() for _, vector in rows], np.float16)
        return Batch([Item.from_record(record) for record, _ in rows], vectors.reshape(len(rows), self.dim))


class PostgresDatabase:
    """A `Database` in one schema of a PostgreSQL database. One connection serves all calls, one after the other."""

    def __init__(self, place: str) -> None:
        parts = urlsplit(place)
        self._schema = parts.fragment or "diptych"
        self._address = parts._replace(fragment="").geturl()
        user, at, host = parts.netloc.rpartition("@")
        shown = parts._replace(netloc=user.partition(":")[0] + at + host, query="", fragment=self._schema)
        self.place = shown.geturl()
        self._connection: psycopg.Connection[Any] | None = None

    def read_manifest(self) -> bytes | None:
        if "manifest" not in self._tables():
            return None
        command = sql.SQL("SELECT text FROM {}").format(self._named("manifest"))
        with self.asking() as connection:
            row = connection.execute(command).fetchone()
        return None if row is None else bytes(row[0])

    def write_manifest(self, text: bytes) -> None:
        command = "INSERT INTO {} (one, text) VALUES (true, %s) ON CONFLICT (one) DO UPDATE SET text = EXCLUDED.text"
        with self.asking() as connection:
            connection.execute(sql.SQL(command).format(self._named("manifest")), [text])

    def create(self, name: str, dim: int) -> VectorStore:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {} NOT NULL").format(sql.Identifier(column), sql.SQL(_TYPES[kind]))
            for column, kind in COLUMNS.items()
        )
        command = "CREATE TABLE {} ({}, vector halfvec({}) NOT NULL, PRIMARY KEY (id))"
        self.drop(name)
        with self.asking() as connection:
            connection.execute(sql.SQL(command).format(self._named(name), columns, sql.Literal(dim)))
        return PostgresStore(self, self._schema, name, dim)

    def open(self, name: str) -> VectorStore:
        command = (
            "SELECT atttypmod FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid JOIN pg_namespace "
            "ON relnamespace = pg_namespace.oid WHERE nspname = %s AND relname = %s AND attname = 'vector'"
        )
        with self.asking() as connection:
            row = connection.execute(command, [self._schema, name]).fetchone()
        if row is None:
            raise SearchIndexError(
                f"{self.place}: no table {name!r}; build the index again under another name"
            )
        return PostgresStore(self, self._schema, name, int(row[0]))

    def names(self) -> list[str]:
        return [name for name in self._tables() if name not in _OTHERS]

    def drop(self, name: str) -> None:
        with self.asking() as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._named(name)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        key = int.from_bytes(hashlib.sha256(self._schema.encode()).digest()[:8], "big", signed=True)
        # The lock belongs to the connection: the server frees it when this process ends, however that happens.
        with self.connected() as connection:
            if not _first(connection.execute("SELECT pg_try_advisory_lock(%s)", [key])):
                raise SearchIndexError(
                    f"{self.place}: another process is writing to it; wait until it is done"
                )
            try:
                self._make()
                yield
            finally:
                # Not left to the end of the connection: the server may notice that after the next writer has asked.
                with contextlib.suppress(psycopg.Error):
                    connection.execute("SELECT pg_advisory_unlock(%s)", [key])

    def put_thumbnails(self, thumbnails: Mapping[str, bytes]) -> None:
        command = "INSERT INTO {} (name, data) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"
        with self.asking() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(sql.SQL(command).format(self._named("thumbnails")), list(thumbnails.items()))

    def thumbnail(self, name: str) -> bytes | None:
        command = sql.SQL("SELECT data FROM {} WHERE name = %s").format(self._named("thumbnails"))
        with self.asking() as connection:
            row = connection.execute(command, [name]).fetchone()
        return None if row is None else bytes(row[0])

    def delete_thumbnails(self, names: Iterable[str]) -> None:
        command = sql.SQL("DELETE FROM {} WHERE name = ANY(%s)").format(self._named("thumbnails"))
        with self.asking() as connection:
            connection.execute(command, [list(names)])

    def thumbnail_names(self) -> Iterator[str]:
        command = sql.SQL("SELECT name FROM {}").format(self._named("thumbnails"))
        with self.connected() as connection, connection.transaction(), connection.cursor("names") as cursor:
            cursor.execute(command)
            for (name,) in cursor:
                yield name

    def verify(self, names: Sequence[str]) -> int:
        """Read everything: PostgreSQL compares its pages with their check sums, if they are enabled."""
        for name in names:
            for _ in self.open(name).batches():
                pass
        return 0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @contextlib.contextmanager
    def asking(self) -> Iterator["psycopg.Connection[Any]"]:
        """Yield the permanent connection; turn errors of psycopg into `SearchIndexError`."""
        with self._errors():
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            yield self._connection

    @contextlib.contextmanager
    def connected(self) -> Iterator["psycopg.Connection[Any]"]:
        """Yield a connection for one use."""
        with self._errors(), self._connect() as connection:
            yield connection

    def _connect(self) -> "psycopg.Connection[Any]":
        connection = psycopg.connect(self._address, autocommit=True)
        if _first(connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")):
            register_vector(connection)
        return connection

    def _make(self) -> None:
        """Create the schema and its two small tables, if they are missing."""
        with self.asking() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._schema)))
            for name, columns in (
                ("manifest", "one boolean PRIMARY KEY, text bytea NOT NULL"),
                ("thumbnails", 'name text COLLATE "C" PRIMARY KEY, data bytea NOT NULL'),
            ):
                command = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})")
                connection.execute(command.format(self._named(name), sql.SQL(columns)))

    def _tables(self) -> list[str]:
        command = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
        with self.asking() as connection:
            return [name for (name,) in connection.execute(command, [self._schema])]

    def _named(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._schema, name)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SearchIndexError(
                f"{self.place}: {reason}; check the address, the rights of the user, and that the extension pgvector "
                "0.8 or later can be installed there"
            ) from error


def _where(filter_: Filter | None) -> tuple[sql.Composable, list[Any]]:
    if filter_ is None:
        return sql.SQL(""), []
    condition, values = _compile(filter_)
    return sql.SQL(" WHERE ") + condition, values


def _compile(filter_: Filter) -> tuple[sql.Composable, list[Any]]:
    """Turn a filter into a condition with placeholders, and the values."""
    match filter_:
        case Comparison(column, operator, value):
            return sql.Identifier(column) + _OPERATORS[operator] + sql.SQL("%s"), [value]
        case ColumnComparison(left, operator, right):
            return sql.Identifier(left) + _OPERATORS[operator] + sql.Identifier(right), []
        case Membership(column, values):
            return sql.Identifier(column) + sql.SQL(" = ANY(%s)"), [list(values)]
        case Containment(column, text):
            return sql.SQL("strpos({}, %s) > 0").format(sql.Identifier(column)), [text]
        case Negation(part):
            condition, values_ = _compile(part)
            return sql.SQL("NOT ({})").format(condition), values_
        case Combination(how, parts):
            conditions, lists = zip(*map(_compile, parts), strict=True)
            word = sql.SQL(" AND ") if how == "all" else sql.SQL(" OR ")
            return sql.SQL("({})").format(word.join(conditions)), [value for one in lists for value in one]


def _first(cursor: "psycopg.Cursor[Any]") -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]
