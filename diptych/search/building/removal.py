"""Taking pictures out of an index; with `purge`, so that nothing of them is left in it."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from diptych.errors import DataError, SearchIndexError
from diptych.search.building.rewriting import rewritten
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
from diptych.search.stores.connect import connected
from diptych.search.stores.filters import Filter, Together, condition
from diptych.search.stores.protocol import Database

_ID = re.compile(r"[0-9a-f]{32}")
_CHUNK = 4096


def chosen_by(what: str) -> Filter:
    """The filter for what a person names: an id, a uri, a source, a file, or a folder with all that is in it."""
    if _ID.fullmatch(what):
        return condition("id", "=", what)
    parts = [condition("uri", "=", what), condition("source", "=", what)]
    if "://" not in what:
        path = os.path.abspath(what)
        inside = (condition("uri", "starts", path.rstrip(os.sep) + mark) for mark in (os.sep, "#"))
        parts += [condition("uri", "=", path), *inside]
    return Together("any", tuple(parts))


def remove(
    place: str | Path | Database,
    what: Filter,
    *,
    purge: bool = False,
    options: Mapping[str, str] | None = None,
) -> int:
    """Remove the pictures that meet `what`, with their thumbnails; how many there were.

    They can be found no longer when this returns. Old versions of the table still hold them for an hour or more, and
    so may files that hold other pictures too. `purge` writes what is left into a new table and deletes
    the old one, whatever is or ever was in it: also what was removed before.

    Raises:
        SearchIndexError: there is no index, or another process is writing to it.
        DataError: no picture meets `what`, and `purge` is off; nothing was changed.
    """
    with connected(place, options) as database:
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
        raise DataError(f"{database.place}: no picture in it is what was named; nothing is removed")
    manifest = write_manifest(database, dataclasses.replace(manifest, writing=True))
    for table in tables_of(manifest):
        _delete(database, table, what)
    manifest = _forget_sources(database, manifest)
    if purge:
        manifest = rewritten(database, manifest)
        drop_leftovers(database, manifest)
        sweep(database, [database.open(table.name) for table in tables_of(manifest)])
    write_manifest(database, dataclasses.replace(manifest, writing=False))
    return count


def _delete(database: Database, table: Table, what: Filter) -> None:
    store = database.open(table.name)
    # The names first: when the rows have gone, nothing knows them. Rows go before their thumbnails.
    names = [
        name for rows in store.scroll(("thumbnail",), filter_=what) for name in rows["thumbnail"] if name
    ]
    store.delete(what)
    for start in range(0, len(names), _CHUNK):
        database.delete_thumbnails(names[start : start + _CHUNK])
    store.optimize()


def _forget_sources(database: Database, manifest: Manifest) -> Manifest:
    """Without the counts of sources that have no picture left: they would keep the source's name."""
    store = database.open(manifest.current.name)
    left = {
        name: counts
        for name, counts in manifest.skipped.items()
        if store.count(condition("source", "=", name))
    }
    return dataclasses.replace(manifest, skipped=left)
