"""Bringing an index up to date with its data: only what is new or has changed is embedded."""

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from diptych.data.example import Example
from diptych.data.images.photograph import photograph
from diptych.data.sources.opening import Source
from diptych.embed.encode import Progress
from diptych.embed.source_rows import EmbeddedBatch, Skipped, count_reasons, none_readable, read_row, uri_of
from diptych.errors import DataError, ImageError, SearchIndexError
from diptych.search.building.caption_rows import with_all_captions
from diptych.search.building.catalogue import Catalogue
from diptych.search.building.origin import Origin
from diptych.search.building.rewriting import upgraded
from diptych.search.building.separate import check_separate
from diptych.search.building.snapshot import Snapshot, item_of, read, stamp, with_photograph
from diptych.search.building.vanished import LostPicturesError, check_lost, check_replaced
from diptych.search.building.vanished import gone_rows as find_gone
from diptych.search.building.writer import Writer
from diptych.search.manifest import Embedder, Manifest, drop_leftovers, read_manifest, require
from diptych.search.stores.connect import connected
from diptych.search.stores.image_rows import Batch, Item, item_id
from diptych.search.stores.protocol import Database, VectorStore

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
    repeated: int = 0  # rows of the source with the uri of an earlier row, which has their captions
    skipped: list[Skipped] = field(default_factory=list)
    total: int = 0  # in the index, all its sources together


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
    """Make the index at `place` hold exactly the readable pictures of `source`; build it when it is missing.

    A picture is known by its uri. A file whose size and modification time are as before is taken as
    unchanged; otherwise its SHA-256 decides, which also finds moved and copied files. Pictures of other
    sources stay.

    What is embedded is written every `commit_rows` pictures or `commit_seconds`, and can be found from then on.
    `progress` counts rows of the source that are settled: embedded ones when they are written. Killed at any
    moment, nothing that it has counted is lost, and started again it goes on there. What is no longer in the source
    is removed last.

    Where the files of more than half of a source's pictures, and of 10 or more, have vanished, none is removed, and the
    rest is done; `force` removes them, also where nothing is left.

    `rebuild` embeds everything again, with another model if need be: pictures of other sources are dropped,
    and the old index answers until the new one takes its place.

    Raises:
        SearchIndexError: the index belongs to another model, is damaged, or is being written to; or `place` is the
            source, or a folder of other things.
        LostPicturesError: most pictures of the source have vanished, and `force` is off.
        DataError: not one picture of the source can be read; the index is left as it is.
    """
    if isinstance(place, str | Path):
        check_separate(str(place), source.name)
    with _leaving_no_empty_folder(place), connected(place, options) as database, database.writing():
        manifest = read_manifest(database)
        if manifest is not None and not rebuild:
            require(database.place, manifest.current, encoder)
        drop_leftovers(database, manifest)
        if manifest is not None:
            manifest = upgraded(database, manifest)
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


@contextlib.contextmanager
def _leaving_no_empty_folder(place: str | Path | Database) -> Iterator[None]:
    """Remove the folder of a new index again where not one picture could be read."""
    is_new = isinstance(place, str | Path) and not Path(place).exists()
    try:
        yield
    except DataError:
        if is_new:
            shutil.rmtree(str(place), ignore_errors=True)
        raise


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
            uri = self._origin.spelled(uri_of(self._source, example))
            if self._settled(example, uri):
                self._progress(1)
            else:
                yield position

    def _settled(self, example: Example, uri: str) -> bool:
        """Whether a picture needs no embedding: it is there, its vector is, or the source names it again."""
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
            stamped = row is not None and mtime_ns is not None and self._is_stamped(row, size, mtime_ns)
            if stamped and here.told() == catalogue.told(row or 0):
                self._summary.unchanged += 1
                return True
            if not stamped and not catalogue.has_size(size):
                return False
            data = read(example.image)
        except (OSError, ImageError):
            return False  # embedding meets it again, and says what is wrong
        half = hashlib.sha256(data).digest()[:16]
        origin = row if row is not None and catalogue.half_sha256(row) == half else catalogue.find_bytes(half)
        return origin is not None and self._keep(with_photograph(here, photograph(data)), row, origin)

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
        gone_rows = find_gone(self._catalogue, self._origin)
        gone_bytes = {self._catalogue.half_sha256(row) for row in gone_rows}
        moved = [half for half in self._arrived if half in gone_bytes]
        moved_bytes = set(moved)
        summary.moved = len(moved)
        summary.added += len(self._arrived) - len(moved)
        removed = [row for row in gone_rows if self._catalogue.half_sha256(row) not in moved_bytes]
        here = summary.added + summary.updated + summary.moved + summary.unchanged
        if not here and not (self._force and gone_rows):
            raise DataError(f"{self._source.name}: {none_readable(summary.skipped)}")
        lost = None
        if self._replaced is not None and not self._force:
            check_replaced(self._place, self._replaced, self._origin.name)
        if not self._force:
            try:
                check_lost(self._place, self._catalogue, removed)
            except LostPicturesError as error:
                lost, stays = error, set(removed)
                gone_rows = [row for row in gone_rows if row not in stays]
        summary.removed = 0 if lost else len(removed)
        self._writer.delete([self._catalogue.id_of(row) for row in gone_rows])
        others = {*self._catalogue.sources} - {self._origin.name}
        before = self._manifest.skipped if self._manifest is not None else {}
        skipped = {name: counts for name, counts in before.items() if name in others}
        skipped[self._origin.name] = dict(count_reasons(summary.skipped))
        self._writer.finish(skipped)
        summary.total = 0 if self._writer.store is None else self._writer.store.count()
        if lost is not None:  # everything else is done
            raise lost
        return summary
