"""The rows of a source as vectors: read and decoded ahead, batch by batch, and what cannot be read is listed."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diptych.data.example import Example
from diptych.data.files.remote import is_address
from diptych.data.images.decoding import WHITE, Pixels, default_limits, read_file, read_rgb, upright_size
from diptych.data.images.thumbnails import Preview, preview
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import LeftOut
from diptych.data.reasons import reason_of
from diptych.data.sources.opening import Source
from diptych.embed.ahead import ahead, in_batches
from diptych.embed.encode import Encode, Preprocessing, Vectors, encode_pixels, stacked
from diptych.errors import DataError, ImageError
from diptych.models.capabilities import EmbedsImages


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row of a source that has no embedding, and why."""

    position: int  # in the source
    uri: str
    reason: str  # the kind of failure, to count by: `diptych.data.reasons`
    detail: str  # the message


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Consecutive rows of a source. `vectors` is (len(examples), dim), row for row with the rest; of unit length
    where it holds embeddings. `previews` and `sha256`, of the images' files, are empty where none were asked for."""

    positions: tuple[int, ...]
    examples: tuple[Example, ...]
    uris: tuple[str, ...]
    vectors: Vectors
    skipped: tuple[Skipped, ...]
    previews: tuple[Preview, ...] = ()
    sha256: tuple[str, ...] = ()


def embed_source(
    model: EmbedsImages,
    preprocess: Preprocessing,
    source: Source,
    *,
    positions: Iterable[int] | None = None,
    batch_size: int = 64,
    previews: bool = False,
    hashes: bool = False,
) -> Iterator[EmbeddedBatch]:
    """Embeddings of a source's images, batch by batch, in the order of `positions` (every row when not
    given).

    A row that cannot be read, or whose image cannot, is listed in its batch's `skipped`; a batch may be empty
    but for those. Reading and decoding run ahead in threads while the model computes. `previews` makes the
    preview of each image too, of the same decoded pixels; `hashes` the SHA-256 of its file, of the same bytes.
    """

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        return encode_pixels(model, pixels)

    batches = encode_source(
        encode,
        preprocess,
        source,
        positions=positions,
        batch_size=batch_size,
        previews=previews,
        hashes=hashes,
    )
    for batch in batches:
        yield batch if batch.positions else replace(batch, vectors=stacked([], model))


def encode_source(
    encode: Encode,
    preprocess: Preprocessing,
    source: Source,
    *,
    positions: Iterable[int] | None = None,
    batch_size: int = 64,
    previews: bool = False,
    hashes: bool = False,
) -> Iterator[EmbeddedBatch]:
    """`embed_source` with any function of images in the model's place; `vectors` is what it returns."""

    def read(position: int) -> _Read | Skipped:
        return _read(source, preprocess, position, previews, hashes)

    rows = range(len(source)) if positions is None else positions
    for batch in in_batches(ahead(read, rows, batch_size), batch_size):
        good = [row for row in batch if not isinstance(row, Skipped)]
        yield EmbeddedBatch(
            positions=tuple(row.position for row in good),
            examples=tuple(row.example for row in good),
            uris=tuple(uri_of(source, row.example) for row in good),
            vectors=encode([row.pixels for row in good]) if good else np.empty((0, 0), np.float32),
            skipped=tuple(row for row in batch if isinstance(row, Skipped)),
            previews=tuple(row.preview for row in good if row.preview is not None),
            sha256=tuple(row.sha256 for row in good if row.sha256 is not None),
        )


def read_row(source: Source, position: int) -> Example | Skipped:
    """One row of a source, or why it cannot be read; nothing is decoded."""
    try:
        return source[position]
    except DataError as error:
        uri = f"{source.name}#{position}" if error.image is None else os.path.abspath(error.image)
        return Skipped(position, uri, reason_of(error), str(error))


def uri_of(source: Source, example: Example) -> str:
    """Where an image is: its absolute path, or `SOURCE#KEY` for one that lives inside something else."""
    if isinstance(example.image, Path):
        return os.path.abspath(example.image)
    elsewhere = source.name.startswith(("sample:", "scenes:")) or is_address(source.name)
    return f"{source.name if elsewhere else os.path.abspath(source.name)}#{example.key}"


def count_reasons(skipped: Iterable[Skipped]) -> LeftOut:
    """Count the rows that were skipped for each reason, the most frequent first; the first are named."""
    found = LeftOut()
    for row in skipped:
        found.add(row.reason, row.uri)
    return found


def none_readable(skipped: Sequence[Skipped]) -> str:
    """The message for a source of which nothing is left."""
    if not skipped:
        return "the source has no images"
    return f"none of {len(skipped)} images could be read; the first: {skipped[0].detail}"


@dataclass(frozen=True, slots=True)
class _Read:
    """One row whose image has been decoded; `pixels` as the model takes them."""

    position: int
    example: Example
    pixels: Tensor
    preview: Preview | None
    sha256: str | None


def _read(
    source: Source, preprocess: Preprocessing, position: int, previews: bool, hashes: bool
) -> _Read | Skipped:
    example = read_row(source, position)
    if isinstance(example, Skipped):
        return example
    try:
        image: Any = example.image
        sha256 = look = None
        if hashes:
            image = image if isinstance(image, bytes) else read_file(image)
            sha256 = hashlib.sha256(image).hexdigest()
        if previews:
            background = preprocess.background if isinstance(preprocess, Preprocess) else WHITE
            encoded, image = image, read_rgb(image, background)
            look = preview(image, size=_size_in_file(encoded, image))
        return _Read(position, example, preprocess(image), look, sha256)
    except ImageError as error:
        uri = uri_of(source, example)
        # Bytes have no name of their own to put into the message.
        named = isinstance(example.image, Path) and str(error).startswith(str(example.image))
        return Skipped(position, uri, reason_of(error), str(error) if named else f"{uri}: {error}")


def _size_in_file(encoded: Path | bytes, pixels: Pixels) -> tuple[int, int] | None:
    """Width and height that the file says, for an image that may have been read reduced; None where it was not."""
    # What is read reduced is at least a quarter of the most that is decoded: else half the reduction would do.
    few = pixels.shape[0] * pixels.shape[1] <= default_limits().pixels // 8
    return None if few else upright_size(encoded)
