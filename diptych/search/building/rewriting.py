"""Rewrite the tables of an index, row for row: to erase removed images, or to upgrade the format."""

import dataclasses

from diptych.search.building.writer import copy_rows
from diptych.search.manifest import (
    FORMAT_VERSION,
    Manifest,
    Table,
    drop_leftovers,
    next_table,
    write_manifest,
)
from diptych.search.stores.protocol import Database


def rewrite_tables(database: Database, manifest: Manifest) -> Manifest:
    """Write every table anew, and return the manifest that names the new tables; the old ones still exist."""
    changes: dict[str, Table] = {}
    for role, table in (("current", manifest.current), ("next", manifest.next)):
        if table is None:
            continue
        fresh, serial = next_table(manifest, table.model, table.fingerprint, table.dim)
        manifest = dataclasses.replace(manifest, serial=serial)
        store = database.create(fresh.name, fresh.dim)
        copy_rows(database.open(table.name), store)
        store.optimize(force=True)
        changes[role] = fresh
    return write_manifest(
        database,
        dataclasses.replace(manifest, format_version=FORMAT_VERSION, **changes),  # type: ignore[arg-type]
    )


def upgrade_format(database: Database, manifest: Manifest) -> Manifest:
    """Return the manifest of an index in the present format; an index of an older format is rewritten first.

    Only the one writer may call this. Nothing is embedded, and a kill leaves the old index unchanged.
    """
    if manifest.format_version == FORMAT_VERSION:
        return manifest
    manifest = rewrite_tables(database, manifest)
    drop_leftovers(database, manifest)
    return manifest
