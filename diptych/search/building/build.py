"""Bring an index up to date with its data: only new and changed images are embedded."""

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from diptych.data.example import Example
from diptych.data.images.photograph import photograph
from diptych.data.sources.opening import Source
from diptych.embed.encode import Progress
from diptych.embed.source_rows import (
    EmbeddedBatch,
    SkippedRow,
    count_reasons,
    none_readable,
    read_row,
    uri_of,
)
from diptych.errors import DataError, ImageError
from diptych.search.building.caption_rows import with_all_captions
from diptych.search.building.catalogue import Catalogue
from diptych.search.building.origin import Origin
from diptych.search.building.pending_rows import KnownVector, PendingRows
from diptych.search.building.rewriting import upgrade_format
from diptych.search.building.separate import check_separate, leaving_no_empty_folder
from diptych.search.building.snapshot import Snapshot, item_of, read, stamp, with_photograph
from diptych.search.building.vanished import LostImagesError, check_lost, check_replaced, gone_rows
from diptych.search.building.writer import Writer
from diptych.search.manifest import Embedder, Manifest, drop_leftovers, read_manifest, require
from diptych.search.stores.connect import connected_database
from diptych.search.stores.image_rows import Item, item_id
from diptych.search.stores.protocol import Database, VectorStore

# A kill loses the embeddings since the last commit: at most this many images, or those of this many seconds.
COMMIT_ROWS = 1024
COMMIT_SECONDS = 5.0


class ImageEncoder(Embedder, Protocol):
    """The model of a refresh; `diptych.search.encoder.Encoder` implements it."""

    def rows(
        self, source: Source, positions: Iterable[int], *, previews: bool
    ) -> Iterator[EmbeddedBatch]: ...


@dataclass
class Summary:
    """The result of a refresh, in images. The first four add up to the images of the source in the index."""

    added: int = 0
    updated: int = 0  # the same uri with other bytes
    moved: int = 0  # the same bytes at another uri; not embedded again
    unchanged: int = 0
    removed: int = 0  # no longer in the source
    repeated: int = 0  # rows of the source with the uri of an earlier row, which received their captions
    skipped: list[SkippedRow] = field(default_factory=list)
    total: int = 0  # in the index, over all its sources


def refresh(
    place: str | Path | Database,
    source: Source,
    encoder: ImageEncoder,
    *,
    rebuild: bool = False,
    force: bool = False,
    thumbnails: bool = True,
    progress: Progress | None = None,
    commit_rows: int = COMMIT_ROWS,
    commit_seconds: float = COMMIT_SECONDS,
    options: Mapping[str, str] | None = None,
) -> Summary:
    """Make the index at `place` hold exactly the readable images of `source`; build it if it is missing.

    An image is identified by its uri. A file with the recorded size and modification time counts as unchanged; else
    its SHA-256 decides, which also finds moved and copied files. Images of other sources stay.

    Embeddings are written every `commit_rows` images or `commit_seconds`, and can be found from then on. `progress`
    counts the finished rows of the source; embedded ones when they are written. A kill at any moment loses nothing
    that `progress` has counted, and the next call continues there. Images that are no longer in the source are removed
    last.

    If the files of more than half of a source's images, and of 10 or more, have vanished, none is removed, and all the
    rest is done. `force` removes them, even if nothing is left.

    `rebuild` embeds everything again, with another model if needed. Images of other sources are dropped, and the old
    index answers until the new one replaces it.

    Raises:
        SearchIndexError: the index belongs to another model, is damaged, or is being written to; or `place` is the
            source, or a folder of other things.
        LostImagesError: most images of the source have vanished, and `force` is off.
        DataError: no image of the source can be read; the index stays unchanged.
    """
    if isinstance(place, str | Path):
        check_separate(str(place), source.name)
    with leaving_no_empty_folder(place), connected_database(place, options) as database, database.writing():
        manifest = read_manifest(database)
        if manifest is not None and not rebuild:
            require(database.place, manifest.current, encoder)
        drop_leftovers(database, manifest)
        if manifest is not None:
            manifest = upgrade_format(database, manifest)
        writer = Writer(database, manifest, encoder, rebuild=rebuild)
        run = _Refresh(
            with_all_captions(source),
            encoder,
            writer,
            manifest=manifest,
            replaced=database.open(manifest.current.name) if manifest is not None and rebuild else None,
            force=force,
            place=database.place,
            thumbnails=thumbnails,
            commit=(commit_rows, commit_seconds),
            progress=progress or (lambda _: None),
        )
        return run.run()


class _Refresh:
    """One refresh: read the source, embed and write what is new, and remove what is gone."""

    def __init__(
        self,
        source: Source,
        encoder: ImageEncoder,
        writer: Writer,
        *,
        manifest: Manifest | None,
        replaced: VectorStore | None,
        force: bool,
        place: str,
        thumbnails: bool,
        commit: tuple[int, float],
        progress: Progress,
    ) -> None:
        self._source, self._encoder, self._writer = source, encoder, writer
        self._manifest, self._thumbnails = manifest, thumbnails
        self._replaced, self._force, self._place = replaced, force, place
        self._commit_rows, self._commit_seconds = commit
        self._progress = progress
        self._catalogue = Catalogue(writer.store)
        self._origin = Origin(source, self._catalogue.sources)
        self._snapshot = Snapshot(source, self._origin)
        self._new: set[bytes] = set()  # ids of this source that are not in the catalogue
        self._arrived: list[bytes] = []  # half hashes of images with a new uri and a known vector
        self._waiting = PendingRows()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._writing: Future[int] | None = None
        self._last_commit = time.monotonic()
        self._summary = Summary()

    def run(self) -> Summary:
        rows = self._encoder.rows(self._snapshot, self._to_embed(), previews=self._thumbnails)
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
                    self._waiting.embedded.append((items, batch))
                late = time.monotonic() - self._last_commit > self._commit_seconds
                if self._waiting.embedded_count >= self._commit_rows or late:
                    self._commit()
                elif self._writing is not None and self._writing.done():
                    self._settle()
            self._commit()
            self._settle()
        return self._finish()

    def _to_embed(self) -> Iterator[int]:
        """Yield the positions of images without a vector, and settle all others on the way."""
        for position in range(len(self._source)):
            example = read_row(self._source, position)
            if isinstance(example, SkippedRow):
                self._summary.skipped.append(example)
                self._progress(1)
                continue
            uri = self._origin.spelled(uri_of(self._source, example))
            if self._is_settled(example, uri):
                self._progress(1)
            else:
                yield position

    def _is_settled(self, example: Example, uri: str) -> bool:
        """Return whether an image needs no embedding: it or its vector is in the index, or the source repeats it."""
        catalogue = self._catalogue
        row = catalogue.find(item_id(uri))
        owner = self._origin.name if row is None else self._origin.owner(uri, catalogue.source_of(row))
        here = item_of(example, uri, owner, size=0, mtime_ns=None, sha256="")
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
            stamped = row is not None and mtime_ns is not None and catalogue.has_stamp(row, size, mtime_ns)
            if stamped and here.told() == catalogue.told(row or 0):
                self._summary.unchanged += 1
                return True
            if not stamped and not catalogue.has_size(size):
                return False
            data = read(example.image)
        except (OSError, ImageError):
            return False  # embedding reads it again, and reports the error
        half = hashlib.sha256(data).digest()[:16]
        origin = row if row is not None and catalogue.half_sha256(row) == half else catalogue.find_bytes(half)
        return origin is not None and self._keep(with_photograph(here, photograph(data)), row, origin)

    def _keep(self, here: Item, row: int | None, origin: int) -> bool:
        """Record that an image has its vector; its row is written if its description has changed."""
        if row == origin:
            self._summary.unchanged += 1
            if here.told() == self._catalogue.told(row):
                return True
        elif row is None:
            self._arrived.append(self._catalogue.half_sha256(origin))
        else:
            self._summary.updated += 1
        self._waiting.known.append(KnownVector(here, self._catalogue.id_of(origin)))
        if len(self._waiting.known) >= self._commit_rows:
            self._commit()
        return True

    def _forget(self, batch: EmbeddedBatch) -> None:
        """Mark images that can no longer be read, so that they leave the index at the end."""
        for skipped in batch.skipped:
            uri = self._snapshot.uris.pop(skipped.position, skipped.uri)
            row = self._catalogue.find(item_id(uri))
            if row is not None:
                self._catalogue.seen[row] = False
        for position in batch.positions:
            self._snapshot.uris.pop(position, None)

    def _commit(self) -> None:
        """Write the waiting rows in the background, while more is embedded.

        All decisions are made here: the writing thread touches nothing else of this object.
        """
        self._settle()
        rows, self._waiting = self._waiting, PendingRows()
        if rows.known or rows.embedded:
            updated = rows.mark_changes(self._catalogue)
            self._summary.updated += updated
            self._summary.added += rows.embedded_count - updated
            self._writing = self._background.submit(rows.write, self._writer, self._catalogue)
        self._last_commit = time.monotonic()

    def _settle(self) -> None:
        """Wait until the rows in the background are written, or raise their error."""
        if self._writing is not None:
            embedded = self._writing.result()
            self._writing = None
            if embedded:
                self._progress(embedded)

    def _finish(self) -> Summary:
        summary = self._summary
        gone = gone_rows(self._catalogue, self._origin)
        gone_bytes = {self._catalogue.half_sha256(row) for row in gone}
        moved = [half for half in self._arrived if half in gone_bytes]
        moved_bytes = set(moved)
        summary.moved = len(moved)
        summary.added += len(self._arrived) - len(moved)
        removed = [row for row in gone if self._catalogue.half_sha256(row) not in moved_bytes]
        here = summary.added + summary.updated + summary.moved + summary.unchanged
        if not here and not (self._force and gone):
            raise DataError(f"{self._source.name}: {none_readable(summary.skipped)}")
        lost = None
        if self._replaced is not None and not self._force:
            check_replaced(self._place, self._replaced, self._origin.name)
        if not self._force:
            try:
                check_lost(self._place, self._catalogue, removed)
            except LostImagesError as error:
                lost, stays = error, set(removed)
                gone = [row for row in gone if row not in stays]
        summary.removed = 0 if lost else len(removed)
        self._writer.delete([self._catalogue.id_of(row) for row in gone])
        others = {*self._catalogue.sources} - {self._origin.name}
        before = self._manifest.skipped if self._manifest is not None else {}
        skipped = {name: counts for name, counts in before.items() if name in others}
        skipped[self._origin.name] = dict(count_reasons(summary.skipped))
        self._writer.finish(skipped)
        summary.total = 0 if self._writer.store is None else self._writer.store.count()
        if lost is not None:  # raised last, because everything else is done
            raise lost
        return summary
