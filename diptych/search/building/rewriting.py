"""Writing the tables of an index anew, row for row: to leave nothing of what was removed, or to bring it up to the
present format."""

import dataclasses

from diptych.search.building.writer import copied
from diptych.search.manifest import (
    FORMAT_VERSION,
    Manifest,
    Table,
    drop_leftovers,
    next_table,
    write_manifest,
)
from diptych.search.stores.protocol import Database


def rewritten(database: Database, manifest: Manifest) -> Manifest:
    """Return the manifest of the index with every table written anew, once it counts; the old tables are no longer
    named, and are still there."""
    changes: dict[str, Table] = {}
    for role, table in (("current", manifest.current), ("next", manifest.next)):
        if table is None:
            continue
        fresh, serial = next_table(manifest, table.model, table.fingerprint, table.dim)
        manifest = dataclasses.replace(manifest, serial=serial)
        store = database.create(fresh.name, fresh.dim)
        copied(database.open(table.name), store)
        store.optimize(force=True)
        changes[role] = fresh
    return write_manifest(
        database,
        dataclasses.replace(manifest, format_version=FORMAT_VERSION, **changes),  # type: ignore[arg-type]
    )


def upgraded(database: Database, manifest: Manifest) -> Manifest:
    """Return the manifest of an index in the present format; one of an older format is written anew first.

    Called by the one writer. Nothing is embedded, and a kill leaves the old index as it was.
    """
    if manifest.format_version == FORMAT_VERSION:
        return manifest
    manifest = rewritten(database, manifest)
    drop_leftovers(database, manifest)
    return manifest
