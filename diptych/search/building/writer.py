"""Write rows with their thumbnails to an index, in steps that survive a kill."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from diptych.search.manifest import (
    FORMAT_VERSION,
    Embedder,
    Manifest,
    Table,
    drop_leftovers,
    next_table,
    write_manifest,
)
from diptych.search.stores.filters import Membership
from diptych.search.stores.image_rows import Batch, Item
from diptych.search.stores.protocol import Database, VectorStore

# Rows that are looked up and deleted in one call.
_CHUNK = 4096
# Commits between two checks whether the table needs compaction.
_LOOK_EVERY = 32


class Writer:
    """Writes to the table of `model`: the current one, or with `rebuild` the one that will replace it.

    The first write makes the table, and with it the index. Thumbnails are written before the rows that name them, and
    deleted after them, so that the thumbnail of a row always exists. `finish` removes what a kill left over.
    """

    def __init__(
        self, database: Database, manifest: Manifest | None, model: Embedder, *, rebuild: bool
    ) -> None:
        self._database, self._manifest, self._model = database, manifest, model
        self._rebuild = rebuild and manifest is not None
        self._swept = manifest is None or not manifest.writing
        self._commits = 0
        table = None
        if manifest is not None:
            table = manifest.next if rebuild else manifest.current
        if table is not None and (table.fingerprint, table.dim) != (model.fingerprint, model.dim):
            table = None
        self.store: VectorStore | None = None if table is None else database.open(table.name)
        self._table: Table | None = table

    def upsert(self, batch: Batch, thumbnails: Sequence[bytes | None], *, replaced: Sequence[str]) -> None:
        """Add or replace images; they are stored when this returns. The items get the names of `thumbnails`.

        replaced: the ids that the table may already have.
        """
        store = self._open()
        names = [thumbnail_name(item, data) for item, data in zip(batch.items, thumbnails, strict=True)]
        items = [
            dataclasses.replace(item, thumbnail=name) for item, name in zip(batch.items, names, strict=True)
        ]
        before = self._thumbnails(replaced)
        self._database.put_thumbnails(
            {
                name: data
                for name, data in zip(names, thumbnails, strict=True)
                if name is not None and data is not None
            }
        )
        store.upsert(Batch(items, batch.vectors))
        self._database.delete_thumbnails(before - set(names))
        self._look()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove images; they are gone for good when this returns."""
        if not ids:
            return
        store = self._open()
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            thumbnails = self._thumbnails(part)
            store.delete(part)
            self._database.delete_thumbnails(thumbnails)
            self._look()

    def thumbnail(self, item: Item) -> bytes | None:
        """Return the thumbnail of an image in the index; None if it has none."""
        return None if item.thumbnail is None else self._database.thumbnail(item.thumbnail)

    def finish(self, skipped: dict[str, dict[str, int]]) -> None:
        """Tidy up, and make the table the current one. skipped: for the manifest."""
        if self.store is None or self._manifest is None or self._table is None:
            return
        self.store.optimize()
        manifest = dataclasses.replace(self._manifest, skipped=skipped, writing=False)
        if self._rebuild:
            manifest = dataclasses.replace(manifest, current=self._table, next=None)
        if not self._swept or self._rebuild:
            # The flag stays set until nothing is left over, so that the next writer repairs a kill here.
            self._manifest = write_manifest(self._database, dataclasses.replace(manifest, writing=True))
            sweep(self._database, [self.store])
        if manifest != self._manifest:
            self._manifest = write_manifest(self._database, manifest)
        if self._rebuild:
            drop_leftovers(self._database, self._manifest)

    def _open(self) -> VectorStore:
        """Return the table, made if it is missing, and mark in the manifest that a writer is at work."""
        if self.store is None:
            model = self._model
            table, serial = next_table(self._manifest, model.name, model.fingerprint, model.dim)
            self.store, self._table = self._database.create(table.name, table.dim), table
            if self._manifest is None:
                manifest = Manifest(FORMAT_VERSION, current=table, serial=serial, writing=True)
            else:
                manifest = dataclasses.replace(self._manifest, next=table, serial=serial, writing=True)
            self._manifest = write_manifest(self._database, manifest)
        elif self._manifest is not None and not self._manifest.writing:
            self._manifest = write_manifest(self._database, dataclasses.replace(self._manifest, writing=True))
        return self.store

    def _thumbnails(self, ids: Sequence[str]) -> set[str]:
        if self.store is None or not ids:
            return set()
        rows = self.store.scroll(("thumbnail",), filter_=Membership("id", tuple(ids)))
        return {name for part in rows for name in part["thumbnail"] if name}

    def _look(self) -> None:
        self._commits += 1
        if self._commits % _LOOK_EVERY == 0 and self.store is not None:
            self.store.optimize()


def thumbnail_name(item: Item, data: bytes | None) -> str | None:
    """Return the name of a thumbnail: opaque, never used for other bytes, and itself their check sum."""
    return None if data is None else f"{item.id}-{hashlib.sha256(data).hexdigest()[:32]}"


def is_thumbnail(name: str, data: bytes | None) -> bool:
    """Return whether these are the bytes that were written under that name."""
    return data is not None and name.endswith("-" + hashlib.sha256(data).hexdigest()[:32])


def sweep(database: Database, stores: Sequence[VectorStore]) -> None:
    """Delete thumbnails that no row of `stores` names."""
    names = database.thumbnail_names()
    for part in _chunks(names):
        ids = sorted({name.partition("-")[0] for name in part})
        chosen = Membership("id", tuple(ids))
        rows = (part for store in stores for part in store.scroll(("thumbnail",), filter_=chosen))
        named = {name for part in rows for name in part["thumbnail"]}
        database.delete_thumbnails(name for name in part if name not in named)


def _chunks(names: Iterator[str]) -> Iterator[list[str]]:
    while part := list(islice(names, _CHUNK)):
        yield part


def copy_rows(source: VectorStore, target: VectorStore) -> None:
    """Copy every row of one table into another, one piece at a time."""
    for batch in source.batches(chunk=8192):
        target.upsert(Batch(batch.items, np.ascontiguousarray(batch.vectors)))
