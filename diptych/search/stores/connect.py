"""Open the store of an index by its address."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from diptych.search.stores.protocol import Database


def connect(
    place: str | Path | Database, options: Mapping[str, str] | None = None, *, freshness: float = 1.0
) -> Database:
    """Open the database at `place`: a folder, `s3://bucket/prefix` or `postgresql://...`; return an open one as it is.

    options: of the storage (for a bucket: aws_endpoint, aws_region, ...; the rest comes from the environment).
    freshness: seconds after which a reader sees what others write. Nothing is created, and an address without an index
    is not an error yet.

    Raises:
        MissingExtraError: the store's package is not installed.
    """
    if not isinstance(place, str | Path):
        return place
    if str(place).startswith(("postgresql://", "postgres://")):
        from diptych.search.stores.pgvector import PostgresDatabase  # noqa: PLC0415 - optional

        return PostgresDatabase(str(place))
    from diptych.search.stores.lance import LanceDatabase  # noqa: PLC0415 - optional

    return LanceDatabase(place, options, freshness=freshness)


@contextlib.contextmanager
def connected_database(
    place: str | Path | Database, options: Mapping[str, str] | None = None
) -> Iterator[Database]:
    """Open the database as `connect` does, and close it at the end; an open database stays open."""
    database = connect(place, options)
    try:
        yield database
    finally:
        if database is not place:
            database.close()
