"""Remove images from an index; with `purge`, from all of its files."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from diptych.errors import DataError, SearchIndexError
from diptych.search.building.rewriting import rewrite_tables
from diptych.search.building.writer import sweep
from diptych.search.manifest import (
    Manifest,
    Table,
    check_columns,
    drop_leftovers,
    read_manifest,
    tables_of,
    write_manifest,
)
from diptych.search.stores.connect import connected_database
from diptych.search.stores.filter_fields import condition
from diptych.search.stores.filters import Combination, Filter
from diptych.search.stores.protocol import Database

_ID = re.compile(r"[0-9a-f]{32}")
_CHUNK = 4096


def filter_for(what: str) -> Filter:
    """Return the filter for what a user names: an id, a uri, a source, a file, or a folder with its contents."""
    if _ID.fullmatch(what):
        return condition("id", "=", what)
    parts = [condition("uri", "=", what), condition("source", "=", what)]
    if "://" not in what:
        path = os.path.abspath(what)
        inside = (condition("uri", "starts", path.rstrip(os.sep) + mark) for mark in (os.sep, "#"))
        parts += [condition("uri", "=", path), *inside]
    return Combination("any", tuple(parts))


def remove(
    place: str | Path | Database,
    what: Filter,
    *,
    purge: bool = False,
    options: Mapping[str, str] | None = None,
) -> int:
    """Remove the images that meet `what`, with their thumbnails; return their number.

    After the call they cannot be found. Old versions of the table still hold them for an hour or more, and so may files
    that also hold other images. `purge` writes the remaining rows into a new table and deletes the old one, with
    everything that was ever in it, including images that were removed earlier.

    Raises:
        SearchIndexError: there is no index, or another process is writing to it.
        DataError: no image meets `what`, and `purge` is off; nothing was changed.
    """
    with connected_database(place, options) as database:
        if read_manifest(database) is None:
            raise SearchIndexError(f"{database.place}: no index here; check the address")
        with database.writing():
            return _remove(database, what, purge)


def _remove(database: Database, what: Filter, purge: bool) -> int:
    manifest = read_manifest(database)
    assert manifest is not None
    check_columns(database.place, manifest, what)
    drop_leftovers(database, manifest)
    count = database.open(manifest.current.name).count(what)
    if not count and not purge:
        raise DataError(
            f"{database.place}: no image in it matches what was named; nothing was removed; check the name"
        )
    manifest = write_manifest(database, dataclasses.replace(manifest, writing=True))
    for table in tables_of(manifest):
        _delete(database, table, what)
    manifest = _forget_sources(database, manifest)
    if purge:
        manifest = rewrite_tables(database, manifest)
        drop_leftovers(database, manifest)
        sweep(database, [database.open(table.name) for table in tables_of(manifest)])
    write_manifest(database, dataclasses.replace(manifest, writing=False))
    return count


def _delete(database: Database, table: Table, what: Filter) -> None:
    store = database.open(table.name)
    # The names are read first, because only the rows know them. Rows are deleted before their thumbnails.
    names = [
        name for rows in store.scroll(("thumbnail",), filter_=what) for name in rows["thumbnail"] if name
    ]
    store.delete(what)
    for start in range(0, len(names), _CHUNK):
        database.delete_thumbnails(names[start : start + _CHUNK])
    store.optimize()


def _forget_sources(database: Database, manifest: Manifest) -> Manifest:
    """Drop the counts of sources without images: they would keep the name of the source."""
    store = database.open(manifest.current.name)
    left = {
        name: counts
        for name, counts in manifest.skipped.items()
        if store.count(condition("source", "=", name))
    }
    return dataclasses.replace(manifest, skipped=left)
