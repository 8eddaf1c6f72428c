"""Embed the rows of a source batch by batch, reading and decoding ahead, and list the rows that cannot be read."""

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
from diptych.embed.encode import Encode, Preprocessing, Progress, Vectors, encode_pixels, stacked
from diptych.errors import DataError, ImageError
from diptych.models.capabilities import EmbedsImages


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of a source without an embedding, and the reason."""

    position: int  # in the source
    uri: str
    reason: str  # the kind of failure, to count by: `diptych.data.reasons`
    detail: str  # the message


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Consecutive rows of a source.

    vectors: (len(examples), dim), row for row with the rest; embeddings have unit length. previews, sha256: of the
    image files; empty if they were not requested.
    """

    positions: tuple[int, ...]
    examples: tuple[Example, ...]
    uris: tuple[str, ...]
    vectors: Vectors
    skipped: tuple[SkippedRow, ...]
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
    """Embed the images of a source, batch by batch, in the order of `positions` (default: every row).

    A row that cannot be read, or whose image cannot, is listed in the `skipped` of its batch; a batch may have nothing
    else. Reading and decoding run ahead in threads while the model computes. previews: also make a preview of each
    image, from the same decoded pixels. hashes: also return the SHA-256 of its file, from the same bytes.
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
    """Encode the images of a source like `embed_source`, with any function that returns the vectors."""

    def read(position: int) -> _DecodedRow | SkippedRow:
        return _read(source, preprocess, position, previews, hashes)

    rows = range(len(source)) if positions is None else positions
    for batch in in_batches(ahead(read, rows, batch_size), batch_size):
        good = [row for row in batch if not isinstance(row, SkippedRow)]
        yield EmbeddedBatch(
            positions=tuple(row.position for row in good),
            examples=tuple(row.example for row in good),
            uris=tuple(uri_of(source, row.example) for row in good),
            vectors=encode([row.pixels for row in good]) if good else np.empty((0, 0), np.float32),
            skipped=tuple(row for row in batch if isinstance(row, SkippedRow)),
            previews=tuple(row.preview for row in good if row.preview is not None),
            sha256=tuple(row.sha256 for row in good if row.sha256 is not None),
        )


def read_row(source: Source, position: int) -> Example | SkippedRow:
    """Return one row of a source, or the reason why it cannot be read; nothing is decoded."""
    try:
        return source[position]
    except DataError as error:
        uri = f"{source.name}#{position}" if error.image is None else os.path.abspath(error.image)
        return SkippedRow(position, uri, reason_of(error), str(error))


def words_of(source: Source, progress: Progress) -> Iterator[str]:
    """Yield the captions and tags of each row as one text; rows that cannot be read are passed over."""
    for position in range(len(source)):
        row = read_row(source, position)
        if not isinstance(row, SkippedRow):
            yield " ".join((*row.captions, *row.tags))
        progress(1)


def uri_of(source: Source, example: Example) -> str:
    """Return the uri of an image: its absolute path, or `SOURCE#KEY` for one inside an archive or a table."""
    if isinstance(example.image, Path):
        return os.path.abspath(example.image)
    elsewhere = source.name.startswith(("sample:", "scenes:")) or is_address(source.name)
    return f"{source.name if elsewhere else os.path.abspath(source.name)}#{example.key}"


def count_reasons(skipped: Iterable[SkippedRow]) -> LeftOut:
    """Count the skipped rows by reason, the most frequent first, with the first names of each."""
    found = LeftOut()
    for row in skipped:
        found.add(row.reason, row.uri)
    return found


def none_readable(skipped: Sequence[SkippedRow]) -> str:
    """Return the message for a source without a readable image."""
    if not skipped:
        return "the source has no images"
    return f"none of {len(skipped)} images could be read; the first error: {skipped[0].detail}"


@dataclass(frozen=True, slots=True)
class _DecodedRow:
    """A row with its decoded image. pixels: preprocessed for the model."""

    position: int
    example: Example
    pixels: Tensor
    preview: Preview | None
    sha256: str | None


def _read(
    source: Source, preprocess: Preprocessing, position: int, previews: bool, hashes: bool
) -> _DecodedRow | SkippedRow:
    example = read_row(source, position)
    if isinstance(example, SkippedRow):
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
        return _DecodedRow(position, example, preprocess(image), look, sha256)
    except ImageError as error:
        uri = uri_of(source, example)
        # Bytes have no name of their own, so the message lacks one.
        named = isinstance(example.image, Path) and str(error).startswith(str(example.image))
        return SkippedRow(position, uri, reason_of(error), str(error) if named else f"{uri}: {error}")


def _size_in_file(encoded: Path | bytes, pixels: Pixels) -> tuple[int, int] | None:
    """Return the width and height in the file, for an image that may have been read reduced; else None."""
    # A reduced image has at least a quarter of the most pixels that are decoded: else half the reduction would do.
    few = pixels.shape[0] * pixels.shape[1] <= default_limits().pixels // 8
    return None if few else upright_size(encoded)
