"""Bringing an index up to date with its data: only what is new or has changed is embedded."""

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from diptych.data.example import Example
from diptych.data.sources import Source
from diptych.embed import EmbeddedBatch, Progress, Skipped, count_reasons, none_readable, read_row, uri_of
from diptych.errors import DataError, ImageError, SearchIndexError
from diptych.search.catalogue import Catalogue
from diptych.search.manifest import Embedder, Manifest, drop_leftovers, read_manifest, require
from diptych.search.snapshot import Snapshot, item_of, read, stamp
from diptych.search.stores.connect import connected
from diptych.search.stores.protocol import Database
from diptych.search.stores.rows import Batch, Item, item_id
from diptych.search.writer import Writer

# A kill loses what was embedded since the last commit: at most this many pictures, or what these seconds brought.
COMMIT_ROWS = 1024
COMMIT_SECONDS = 5.0


class ImageEncoder(Embedder, Protocol):
    """What a refresh asks of a model; `diptych.search.encoder.Encoder` is one."""

    def images(
        self, source: Source, positions: Iterable[int], *, previews: bool
    ) -> Iterator[EmbeddedBatch]: ...


@dataclass
class Summary:
    """What a refresh did, in pictures. The first four add up to those that the source now has in the
    index."""

    added: int = 0
    updated: int = 0  # the same uri with other bytes
    moved: int = 0  # the same bytes at another uri, not embedded again
    unchanged: int = 0
    removed: int = 0  # no longer in the source
    repeated: int = 0  # rows of the source with the uri of an earlier row
    skipped: list[Skipped] = field(default_factory=list)
    total: int = 0  # in the index, all its sources together


def refresh(
    place: str | Path | Database,
    source: Source,
    encoder: ImageEncoder,
    *,
    rebuild: bool = False,
    thumbnails: bool = True,
    progress: Progress | None = None,
    commit_rows: int = COMMIT_ROWS,
    commit_seconds: float = COMMIT_SECONDS,
    options: Mapping[str, str] | None = None,
) -> Summary:
    """Make the index at `place` hold exactly the readable pictures of `source`; build it when it is missing.

    A picture is known by its uri. A file whose size and modification time are as before is taken as
    unchanged; otherwise its SHA-256 decides, which also finds moved and copied files. Pictures of other
    sources stay.

    What is embedded is written every `commit_rows` pictures or `commit_seconds`, and can be found from then on.
    `progress` counts rows of the source that are settled: embedded ones when they are written. Killed at any
    moment, nothing that it has counted is lost, and started again it goes on there. What is no longer in the source
    is removed last.

    `rebuild` embeds everything again, with another model if need be: pictures of other sources are dropped,
    and the old index answers until the new one takes its place.

    Raises:
        SearchIndexError: the index belongs to another model, is damaged, or is being written to.
        DataError: not one picture of the source can be read; the index is left as it is.
    """
    with connected(place, options) as database, database.writing():
        manifest = read_manifest(database)
        if manifest is not None and not rebuild:
            require(database.place, manifest.current, encoder)
        drop_leftovers(database, manifest)
        writer = Writer(database, manifest, encoder, rebuild=rebuild)
        run = _Refresh(
            source,
            encoder,
            writer,
            manifest=manifest,
            thumbnails=thumbnails,
            commit=(commit_rows, commit_seconds),
            progress=progress or (lambda _: None),
        )
        return run.run()


@dataclass(frozen=True)
class _Kept:
    """A picture whose vector the index has already, under the id `origin`; `item` is as it is now."""

    item: Item
    origin: str


_Waiting: TypeAlias = tuple[list[Item], EmbeddedBatch]


class _Refresh:
    """One refresh: go through the source, embed what is new, write as it comes, remove what has gone."""

    def __init__(
        self,
        source: Source,
        encoder: ImageEncoder,
        writer: Writer,
        *,
        manifest: Manifest | None,
        thumbnails: bool,
        commit: tuple[int, float],
        progress: Progress,
    ) -> None:
        self._source, self._encoder, self._writer = source, encoder, writer
        self._manifest, self._thumbnails = manifest, thumbnails
        self._commit_rows, self._commit_seconds = commit
        self._progress = progress
        self._snapshot = Snapshot(source)
        self._catalogue = Catalogue(writer.store)
        self._new: set[bytes] = set()  # ids of this source that the catalogue has not
        self._arrived: list[bytes] = []  # half hashes of pictures with a new uri and a known vector
        self._kept: list[_Kept] = []
        self._waiting: list[_Waiting] = []
        self._background = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._writing: Future[int] | None = None
        self._last_commit = time.monotonic()
        self._summary = Summary()

    def run(self) -> Summary:
        rows = self._encoder.images(self._snapshot, self._to_embed(), previews=self._thumbnails)
        with self._background:
            for batch in rows:
                items = [self._snapshot.items.pop(position) for position in batch.positions]
                uris = self._snapshot.uris
                self._summary.skipped += [
                    dataclasses.replace(row, uri=uris.get(row.position, row.uri)) for row in batch.skipped
                ]
                self._forget(batch)
                if batch.skipped:
                    self._progress(len(batch.skipped))
                if items:
                    self._waiting.append((items, batch))
                count = sum(len(waiting) for waiting, _ in self._waiting)
                late = time.monotonic() - self._last_commit > self._commit_seconds
                if count >= self._commit_rows or late:
                    self._commit()
                elif self._writing is not None and self._writing.done():
                    self._settle()
            self._commit()
            self._settle()
        return self._finish()

    def _to_embed(self) -> Iterator[int]:
        """Positions whose pictures have no vector yet; the rest is settled on the way."""
        for position in range(len(self._source)):
            example = read_row(self._source, position)
            if isinstance(example, Skipped):
                self._summary.skipped.append(example)
                self._progress(1)
                continue
            uri = uri_of(self._source, example)
            if self._settled(example, uri):
                self._progress(1)
            else:
                yield position

    def _settled(self, example: Example, uri: str) -> bool:
        """Whether a picture needs no embedding: it is there, its vector is, or the source names it again."""
        catalogue = self._catalogue
        here = item_of(example, uri, self._snapshot.known_as, size=0, mtime_ns=None, sha256="")
        row = catalogue.find(here.id)
        number = bytes.fromhex(here.id)
        if number in self._new or (row is not None and catalogue.seen[row]):
            self._summary.repeated += 1
            return True
        if row is None:
            self._new.add(number)
        else:
            catalogue.seen[row] = True
        try:
            size, mtime_ns = stamp(example.image)
            here = dataclasses.replace(here, size=size, mtime_ns=mtime_ns)
            if row is not None and mtime_ns is not None and self._is_stamped(row, size, mtime_ns):
                return self._keep(here, row, row)
            if not catalogue.has_size(size):
                return False
            digest = hashlib.sha256(read(example.image)).hexdigest()
        except (OSError, ImageError):
            return False  # embedding meets it again, and says what is wrong
        if row is not None and catalogue.half_sha256(row) == bytes.fromhex(digest)[:16]:
            return self._keep(here, row, row)
        origin = catalogue.find_bytes(digest)
        return False if origin is None else self._keep(here, row, origin)

    def _is_stamped(self, row: int, size: int, mtime_ns: int) -> bool:
        found = self._catalogue.rows[row]
        return bool((found["bytes"], found["mtime_ns"]) == (size, mtime_ns))

    def _keep(self, here: Item, row: int | None, origin: int) -> bool:
        """Note that a picture has its vector: to be written, where the index says something else of it."""
        if row == origin:
            self._summary.unchanged += 1
            if here.told() == self._catalogue.told(row):
                return True
        elif row is None:
            self._arrived.append(self._catalogue.half_sha256(origin))
        else:
            self._summary.updated += 1
        self._kept.append(_Kept(here, self._catalogue.id_of(origin)))
        if len(self._kept) >= self._commit_rows:
            self._commit()
        return True

    def _forget(self, batch: EmbeddedBatch) -> None:
        """A picture that can no longer be read leaves the index in the end, if it was in it."""
        for skipped in batch.skipped:
            uri = self._snapshot.uris.pop(skipped.position, skipped.uri)
            row = self._catalogue.find(item_id(uri))
            if row is not None:
                self._catalogue.seen[row] = False
        for position in batch.positions:
            self._snapshot.uris.pop(position, None)

    def _commit(self) -> None:
        """Have what waits written, while more is embedded. What is decided about it is decided here: the thread that
        writes touches nothing else of this object."""
        self._settle()
        kept, waiting = self._kept, self._waiting
        self._kept, self._waiting = [], []
        if kept or waiting:
            self._note_changes(kept, waiting)
            self._writing = self._background.submit(self._write, kept, waiting)
        self._last_commit = time.monotonic()

    def _settle(self) -> None:
        """Wait until what was given to write is kept, or raise what came in its way."""
        if self._writing is not None:
            embedded = self._writing.result()
            self._writing = None
            if embedded:
                self._progress(embedded)

    def _note_changes(self, kept: list[_Kept], waiting: list[_Waiting]) -> None:
        """Rows that are about to have the vectors of other bytes lend theirs to no other picture from here on."""
        catalogue = self._catalogue
        for one in kept:
            row = catalogue.find(one.item.id)
            if row is not None and one.origin != one.item.id:
                catalogue.changed[row] = True
        for items, _ in waiting:
            rows = [row for item in items if (row := catalogue.find(item.id)) is not None]
            catalogue.changed[rows] = True
            self._summary.updated += len(rows)
            self._summary.added += len(items) - len(rows)

    def _write(self, kept: list[_Kept], waiting: list[_Waiting]) -> int:
        """Write both; how many were embedded. Kept vectors come first: embedded pictures may replace the rows that
        have them."""
        self._write_kept(kept)
        if waiting:
            self._write_embedded(waiting)
        return sum(len(items) for items, _ in waiting)

    def _write_embedded(self, waiting: list[_Waiting]) -> None:
        items: list[Item] = []
        thumbnails: list[bytes | None] = []
        for batch_items, batch in waiting:
            previews = batch.previews or (None,) * len(batch_items)
            for item, look in zip(batch_items, previews, strict=True):
                width, height = (0, 0) if look is None else (look.width, look.height)
                items.append(dataclasses.replace(item, width=width, height=height))
                thumbnails.append(None if look is None else look.thumbnail)
        vectors = np.concatenate([batch.vectors for _, batch in waiting]).astype(np.float16)
        replaced = [item.id for item in items if self._catalogue.find(item.id) is not None]
        self._writer.upsert(Batch(items, vectors), thumbnails, replaced=replaced)

    def _write_kept(self, kept: list[_Kept]) -> None:
        store = self._writer.store
        if not kept or store is None:
            return
        found = store.get([one.origin for one in kept])
        places = {item.id: place for place, item in enumerate(found.items)}
        missing = next((one for one in kept if one.origin not in places), None)
        if missing is not None:
            raise SearchIndexError(
                f"{missing.item.uri}: another writer removed its vector meanwhile; run the same command again"
            )
        items, thumbnails = [], []
        for one in kept:
            old = found.items[places[one.origin]]
            items.append(dataclasses.replace(one.item, sha256=old.sha256, width=old.width, height=old.height))
            thumbnails.append(self._writer.thumbnail(old))
        vectors = found.vectors[[places[one.origin] for one in kept]]
        self._writer.upsert(Batch(items, vectors), thumbnails, replaced=[item.id for item in items])

    def _finish(self) -> Summary:
        summary = self._summary
        gone = self._catalogue.of_source(self._snapshot.known_as) & ~self._catalogue.seen
        gone_rows = [int(row) for row in np.flatnonzero(gone)]
        gone_bytes = {self._catalogue.half_sha256(row) for row in gone_rows}
        moved = [half for half in self._arrived if half in gone_bytes]
        moved_bytes = set(moved)
        summary.moved = len(moved)
        summary.added += len(self._arrived) - len(moved)
        summary.removed = sum(self._catalogue.half_sha256(row) not in moved_bytes for row in gone_rows)
        if not summary.added + summary.updated + summary.moved + summary.unchanged:
            raise DataError(f"{self._source.name}: {none_readable(summary.skipped)}")
        self._writer.delete([self._catalogue.id_of(row) for row in gone_rows])
        others = {*self._catalogue.sources} - {self._snapshot.known_as}
        before = self._manifest.skipped if self._manifest is not None else {}
        skipped = {name: counts for name, counts in before.items() if name in others}
        skipped[self._snapshot.known_as] = dict(count_reasons(summary.skipped))
        self._writer.finish(skipped)
        summary.total = 0 if self._writer.store is None else self._writer.store.count()
        return summary
