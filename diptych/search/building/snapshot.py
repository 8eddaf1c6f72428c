"""Read each image of a source once, so that the hashed and recorded bytes are the embedded ones."""

import dataclasses
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from diptych.data.example import Example
from diptych.data.images.decoding import DEFAULT_LIMITS
from diptych.data.images.photograph import Photograph, photograph
from diptych.data.sources.opening import Source
from diptych.embed.source_rows import uri_of
from diptych.errors import ImageError
from diptych.search.building.origin import Origin
from diptych.search.stores.image_rows import READING, Item, item_id

NOTHING = Photograph()


class Snapshot:
    """A source that returns the bytes of images, and keeps an item for each.

    It is called from the decoding threads; each position is touched by one thread.
    """

    def __init__(self, source: Source, origin: Origin) -> None:
        self._source, self._origin = source, origin
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
        uri = self.uris[position] = self._origin.spelled(uri_of(self._source, example))
        try:
            # The time is read first, so that the next refresh notices a file that changes in between.
            _, mtime_ns = stamp(example.image)
            data = read(example.image)
        except OSError as error:
            raise ImageError(f"{uri}: cannot be read ({error.strerror or error}); check the path") from error
        self.items[position] = item_of(
            example,
            uri,
            self._origin.name,
            size=len(data),
            mtime_ns=mtime_ns,
            sha256=hashlib.sha256(data).hexdigest(),
            camera_says=photograph(data),
        )
        return dataclasses.replace(example, image=data)

    def describe(self) -> str:
        return self._source.describe()


def item_of(
    example: Example,
    uri: str,
    source: str,
    *,
    size: int,
    mtime_ns: int | None,
    sha256: str,
    camera_says: Photograph = NOTHING,
) -> Item:
    """Return the item of an image, without its thumbnail and its size in pixels."""
    item = Item(
        id=item_id(uri),
        uri=uri,
        source=source,
        size=size,
        mtime_ns=mtime_ns,
        sha256=sha256,
        caption=example.captions[0] if example.captions else None,
        further_captions=example.captions[1:],
        label=example.label,
        tags=example.tags,
        metadata=_plain(example.metadata),
        reading=READING,
    )
    return with_photograph(item, camera_says)


def with_photograph(item: Item, camera_says: Photograph) -> Item:
    """Return the item with the facts that the camera wrote into its file."""
    taken = camera_says.taken
    return dataclasses.replace(
        item,
        taken=None if taken is None else taken.isoformat(),
        camera=camera_says.camera,
        latitude=camera_says.latitude,
        longitude=camera_says.longitude,
    )


def stamp(image: Path | bytes) -> tuple[int, int | None]:
    """Return the size in bytes and the time of the last change of a file; for bytes, the size and None."""
    if isinstance(image, bytes):
        return len(image), None
    status = image.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{image}: not a file; expected an image file")
    if status.st_size > DEFAULT_LIMITS.file_bytes:
        raise ImageError(
            f"{image}: larger than {DEFAULT_LIMITS.file_bytes:,} bytes, the largest size that is read; "
            "save a smaller copy"
        )
    return status.st_size, status.st_mtime_ns


def read(image: Path | bytes) -> bytes:
    """Return the bytes of an image's file."""
    return image if isinstance(image, bytes) else image.read_bytes()


def _plain(metadata: Any) -> Any:
    """Return metadata as they come back from JSON, so that they compare equal to those in an index."""
    return json.loads(json.dumps(dict(metadata), default=str))
