"""The place of an index by its address."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from diptych.search.stores.protocol import Database


def connect(
    place: str | Path | Database, options: Mapping[str, str] | None = None, *, freshness: float = 1.0
) -> Database:
    """The database at `place`: a folder, `s3://bucket/prefix` or `postgresql://...`; one that is open is returned.

    `options` are the storage's own (for a bucket: aws_endpoint, aws_region, ...; the environment has the rest).
    A reader sees what others write after `freshness` seconds. Nothing is made: an address without an index
    is no error yet.

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
def connected(place: str | Path | Database, options: Mapping[str, str] | None = None) -> Iterator[Database]:
    """`connect`, closed at the end; a database that was open stays open."""
    database = connect(place, options)
    try:
        yield database
    finally:
        if database is not place:
            database.close()
