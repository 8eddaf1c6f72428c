"""Uploaded images: stored in a folder, so that they outlive the index, and added to the index."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.atomic import atomic_write
from diptych.data.example import Example
from diptych.data.images.decoding import format_of
from diptych.data.images.thumbnails import Preview
from diptych.embed.encode import Vectors
from diptych.errors import DataError, SearchIndexError
from diptych.search.building.removal import remove
from diptych.search.building.rewriting import upgrade_format
from diptych.search.building.snapshot import item_of, stamp
from diptych.search.building.writer import Writer, thumbnail_name
from diptych.search.image_index import Index
from diptych.search.manifest import Embedder, drop_leftovers, read_manifest, require
from diptych.search.stores.filter_fields import condition
from diptych.search.stores.image_rows import Batch, Item


@dataclass(frozen=True, slots=True)
class EncodedUpload:
    """An uploaded image, with its preview and its vector."""

    data: bytes  # of the file
    caption: str | None
    preview: Preview
    vector: Vectors  # (dim,), unit length


def add(index: Index, model: Embedder, folder: Path, images: Sequence[EncodedUpload]) -> list[Item]:
    """Store the images in `folder`, write them to the index and return their items, in order.

    All are on disk when this returns. The name of a file is the hash of its bytes; its caption lies beside it. So
    `diptych index FOLDER` finds the same images. The same image sent again replaces itself and its caption.

    Raises:
        SearchIndexError: another process is writing to the index, or another model filled it.
    """
    items = [_store(folder, image) for image in images]
    last = {item.id: place for place, item in enumerate(items)}  # one request may hold an image twice
    places = sorted(last.values())
    with index.database.writing():
        manifest = read_manifest(index.database)
        if manifest is None:
            raise SearchIndexError(f"{index.place}: the index is gone; build it again with diptych index")
        require(index.place, manifest.current, model)
        drop_leftovers(index.database, manifest)
        manifest = upgrade_format(index.database, manifest)
        writer = Writer(index.database, manifest, model, rebuild=False)
        vectors = np.stack([images[place].vector for place in places]).astype(np.float16)
        writer.upsert(
            Batch([items[place] for place in places], vectors),
            [images[place].preview.thumbnail for place in places],
            replaced=list(last),
        )
        writer.finish(manifest.skipped)
    return items


def discard(index: Index, folder: Path | None, id_: str) -> bool:
    """Remove an image from the index. Return whether it was there.

    Its file is deleted only if it lies in the folder for uploads."""
    items = index.get([id_]).items
    try:
        remove(index.database, condition("id", "=", id_))
    except DataError:
        return False
    if items and folder is not None:
        path = Path(items[0].uri)
        if path.parent == Path(os.path.abspath(folder)):
            path.unlink(missing_ok=True)
            path.with_suffix(".txt").unlink(missing_ok=True)
    return True


def _store(folder: Path, image: EncodedUpload) -> Item:
    """Store an image and its caption on disk. Return its item for the index."""
    sha256 = hashlib.sha256(image.data).hexdigest()
    kind = format_of(image.data)
    assert kind is not None, "the file was decoded in a child process before; here it is not parsed"
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.abspath(folder)) / f"{sha256[:32]}.{kind.lower()}"
    if not path.exists():
        with atomic_write(path) as file:
            file.write(image.data)
    words = path.with_suffix(".txt")
    if image.caption:
        with atomic_write(words) as file:
            file.write(image.caption.encode())
    else:
        words.unlink(missing_ok=True)
    size, mtime_ns = stamp(path)
    example = Example(key=path.name, image=path, captions=(image.caption,) if image.caption else ())
    item = item_of(example, str(path), str(path.parent), size=size, mtime_ns=mtime_ns, sha256=sha256)
    look = image.preview
    return dataclasses.replace(
        item, width=look.width, height=look.height, thumbnail=thumbnail_name(item, look.thumbnail)
    )
