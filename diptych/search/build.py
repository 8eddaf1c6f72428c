"""Bringing an index up to date with its data: only what is new or has changed is embedded."""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from diptych.data.example import Example
from diptych.data.images import DEFAULT_LIMITS
from diptych.data.sources import Source
from diptych.embed import EmbeddedBatch, Progress, Skipped, count_reasons, none_readable, read_row, uri_of
from diptych.errors import DataError, ImageError
from diptych.search.index import Index, ModelIdentity
from diptych.search.storage import (
    FORMAT_VERSION,
    Half,
    Item,
    Manifest,
    WorkArea,
    open_vectors,
    read_items,
    read_manifest,
    remove_leftovers,
    write_generation,
    writing,
)


class ImageEncoder(ModelIdentity, Protocol):
    """What a refresh asks of a model; `diptych.search.encoder.Encoder` is one."""

    @property
    def dim(self) -> int: ...

    def images(self, source: Source, positions: Iterable[int]) -> Iterator[EmbeddedBatch]: ...


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
    folder: str | Path,
    source: Source,
    encoder: ImageEncoder,
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Make the index in `folder` hold exactly the readable pictures of `source`; build it when it is missing.

    A picture is known by its uri. A file whose size and modification time are as before is taken as
    unchanged; otherwise its SHA-256 decides, which also finds moved and copied files. Pictures of other
    sources stay. `progress` counts rows of the source.

    Killed at any moment, it leaves the old index working, and started again it goes on where it was.
    `rebuild` embeds everything again, with another model if need be: pictures of other sources are dropped,
    and the old index answers until the new one takes its place.

    Raises:
        SearchIndexError: the index belongs to another model, is damaged, or is being written to.
        DataError: not one picture of the source can be read; the index is left as it is.
    """
    place = Path(folder)
    with writing(place):
        manifest = read_manifest(place)
        if manifest is not None and not rebuild:
            Index(place).require(encoder)
        remove_leftovers(place, manifest)
        with WorkArea(place, encoder.fingerprint, encoder.dim) as work:
            summary = _Refresh(place, source, encoder, work, manifest=manifest, rebuild=rebuild).run(progress)
        work.remove()
        return summary


@dataclass(frozen=True)
class _Row:
    """A vector that exists: row `number` of the work area, or of the generation that counts."""

    item: Item
    number: int
    in_work: bool


class _Refresh:
    """One refresh: scan and embed, then write what the index shall be."""

    def __init__(
        self,
        folder: Path,
        source: Source,
        encoder: ImageEncoder,
        work: WorkArea,
        *,
        manifest: Manifest | None,
        rebuild: bool,
    ) -> None:
        self._folder, self._source, self._encoder, self._work = folder, source, encoder, work
        self._manifest = manifest
        self._name = (
            source.name if source.name.startswith(("sample:", "scenes:")) else os.path.abspath(source.name)
        )
        self._old: list[Item] = []
        self._vectors: Half = np.empty((0, encoder.dim), np.float16)
        if manifest is not None and not rebuild:
            self._old = read_items(folder / manifest.items_name)
            self._vectors = open_vectors(folder, manifest)
        rows = [_Row(item, number, False) for number, item in enumerate(self._old)]
        rows += [_Row(item, number, True) for number, item in enumerate(work.items)]
        # A row of the work area is newer than one of the generation, and comes later.
        self._by_uri = {row.item.uri: row for row in rows}
        self._by_sha256 = {row.item.sha256: row for row in rows}
        self._sizes = {row.item.size for row in rows}
        # By uri, in the order of the source: rows that are ready, and None for those being embedded.
        self._ready: dict[str, _Row | None] = {}
        self._summary = Summary()

    def run(self, progress: Progress | None) -> Summary:
        advance = progress or (lambda _: None)
        snapshot = _Snapshot(self._source, self._name)
        for batch in self._encoder.images(snapshot, self._to_embed(advance)):
            items = [snapshot.items.pop(position) for position in batch.positions]
            first = len(self._work.items)
            self._work.append(items, batch.vectors.astype(np.float16))
            for number, item in enumerate(items, first):
                self._ready[item.uri] = _Row(item, number, True)
            self._summary.skipped += [
                dataclasses.replace(row, uri=snapshot.uris.get(row.position, row.uri))
                for row in batch.skipped
            ]
            advance(len(batch.positions) + len(batch.skipped))
        return self._finish()

    def _to_embed(self, advance: Progress) -> Iterator[int]:
        """Positions whose pictures have no vector yet; the rest is settled on the way."""
        for position in range(len(self._source)):
            example = read_row(self._source, position)
            if isinstance(example, Skipped):
                self._summary.skipped.append(example)
                advance(1)
                continue
            uri = uri_of(self._source, example)
            if uri in self._ready:
                self._summary.repeated += 1
                advance(1)
                continue
            row = self._known(example, uri)
            self._ready[uri] = row
            if row is None:
                yield position
            else:
                advance(1)

    def _known(self, example: Example, uri: str) -> _Row | None:
        """The row that has this picture's vector already, with the item as it is now."""
        before = self._by_uri.get(uri)
        try:
            size, mtime_ns = _stamp(example.image)
            if before is not None and mtime_ns is not None and before.item.at(size, mtime_ns):
                return self._as_now(before, example, uri, mtime_ns)
            if size not in self._sizes:
                return None
            digest = hashlib.sha256(_bytes(example.image)).hexdigest()
        except (OSError, ImageError):
            return None  # embedding meets it again, and says what is wrong
        row = before if before is not None and before.item.sha256 == digest else self._by_sha256.get(digest)
        return None if row is None else self._as_now(row, example, uri, mtime_ns)

    def _as_now(self, row: _Row, example: Example, uri: str, mtime_ns: int | None) -> _Row:
        item = dataclasses.replace(
            row.item, id=_id(uri), uri=uri, source=self._name, caption=_caption(example), mtime_ns=mtime_ns
        )
        return dataclasses.replace(row, item=item)

    def _finish(self) -> Summary:
        mine = [row for row in self._ready.values() if row is not None]
        if not mine:
            raise DataError(f"{self._source.name}: {none_readable(self._summary.skipped)}")
        uris = {row.item.uri for row in mine}
        others = [
            _Row(item, number, False)
            for number, item in enumerate(self._old)
            if item.source != self._name and item.uri not in uris
        ]
        rows = others + mine
        self._count(mine, uris)
        self._summary.total = len(rows)
        skipped = dict(self._manifest.skipped) if self._manifest is not None and others else {}
        skipped[self._name] = count_reasons(self._summary.skipped)
        if [row.item for row in rows] != self._old or any(row.in_work for row in rows):
            self._write(rows, skipped)
        return self._summary

    def _count(self, mine: list[_Row], uris: set[str]) -> None:
        before = {item.uri: item for item in self._old}
        gone = {item.uri: item for item in self._old if item.source == self._name and item.uri not in uris}
        gone_bytes = {item.sha256 for item in gone.values()}
        moved = set()
        for row in mine:
            old = before.get(row.item.uri)
            if old is not None and old.sha256 == row.item.sha256:
                self._summary.unchanged += 1
            elif old is not None:
                self._summary.updated += 1
            elif row.item.sha256 in gone_bytes:
                self._summary.moved += 1
                moved.add(row.item.sha256)
            else:
                self._summary.added += 1
        self._summary.removed = sum(item.sha256 not in moved for item in gone.values())

    def _write(self, rows: list[_Row], skipped: dict[str, dict[str, int]]) -> None:
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            generation=self._manifest.generation + 1 if self._manifest is not None else 1,
            model=self._encoder.name,
            fingerprint=self._encoder.fingerprint,
            dim=self._encoder.dim,
            count=len(rows),
            sha256={},
            skipped=skipped,
        )
        vector = self._work.vector
        write_generation(
            self._folder,
            manifest,
            ((row.item, vector(row.number) if row.in_work else self._vectors[row.number]) for row in rows),
        )


class _Snapshot:
    """A source whose pictures are read once: what is hashed and recorded is what is embedded.

    Called from the threads that decode; each position is touched by one thread.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name
        self.items: dict[int, Item] = {}
        self.uris: dict[int, str] = {}

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        example = self._source[position]
        uri = self.uris[position] = uri_of(self._source, example)
        try:
            # The time comes first: a file that changes in between is seen as changed by the next refresh.
            _, mtime_ns = _stamp(example.image)
            data = _bytes(example.image)
        except OSError as error:
            raise ImageError(f"{uri}: cannot be read ({error.strerror or error}); check the path") from error
        self.items[position] = Item(
            id=_id(uri),
            uri=uri,
            source=self._name,
            caption=_caption(example),
            size=len(data),
            mtime_ns=mtime_ns,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return dataclasses.replace(example, image=data)

    def describe(self) -> str:
        return self._source.describe()


def _id(uri: str) -> str:
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _caption(example: Example) -> str | None:
    return example.captions[0] if example.captions else None


def _stamp(image: Path | bytes) -> tuple[int, int | None]:
    if isinstance(image, bytes):
        return len(image), None
    status = image.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{image}: not a file; expected an image file")
    if status.st_size > DEFAULT_LIMITS.file_bytes:
        raise ImageError(f"{image}: larger than {DEFAULT_LIMITS.file_bytes:,} bytes, the most that is read")
    return status.st_size, status.st_mtime_ns


def _bytes(image: Path | bytes) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()
