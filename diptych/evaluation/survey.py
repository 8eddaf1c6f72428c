"""Two passes over a source: what its rows say, before minutes are spent on its images; then the images."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.data.subsets.same_images import ImageMarks, mark_image
from diptych.distributed import (
    everybody_fails_together,
    gather_objects,
    gather_rows,
    max_over_processes,
    row_counts,
    share,
    world,
)
from diptych.embed.encode import Encode, Preprocessing, Progress, Vectors, encode_by
from diptych.embed.source_rows import (
    EmbeddedBatch,
    SkippedRow,
    embed_source,
    encode_source,
    none_readable,
    read_row,
)
from diptych.errors import DataError
from diptych.models.capabilities import EmbedsImages
from diptych.models.image_model import ImageModel

T = TypeVar("T")


@dataclass(frozen=True)
class Survey(Generic[T]):
    """What was picked from each readable row, by its position, in order; and the rows that cannot be read.

    images: for each of those positions, that of the first row that shows the same image; see `data.same_images`.
    """

    picked: dict[int, T]
    skipped: list[SkippedRow]
    images: dict[int, int]


@dataclass(frozen=True)
class EmbeddedRows:
    """vectors: (len(positions), width), one for each image that could be read; `positions` are those images'."""

    vectors: Vectors
    positions: list[int]
    skipped: list[SkippedRow]


def survey(source: Source, pick: Callable[[Example], T]) -> Survey[T]:
    """Pick from every row that can be read; nothing is decoded.

    What `pick` raises comes out: a wrong label is found here, before the first image is embedded.
    """
    picked: dict[int, T] = {}
    skipped: list[SkippedRow] = []
    seen = ImageMarks(len(source))
    for position in range(len(source)):
        row = read_row(source, position)
        if isinstance(row, SkippedRow):
            skipped.append(row)
        else:
            picked[position] = pick(row)
            with contextlib.suppress(DataError):  # embedding meets it again, and says what is wrong
                seen.note(position, mark_image(row))
    if not picked:
        raise DataError(f"{source.name}: {none_readable(skipped)}")
    images = seen.images(source, np.arange(len(source)))
    return Survey(picked, skipped, {position: int(images[position]) for position in picked})


def embed_rows(
    model: EmbedsImages,
    preprocess: Preprocessing,
    source: Source,
    positions: Iterable[int],
    *,
    batch_size: int,
    progress: Progress | None,
) -> EmbeddedRows:
    """Embed the images, of unit length, of a source's images in memory; DataError where none can be read.

    Under torchrun each process computes a share of the images, and everybody gets all of them.
    """
    mine = _share(positions)
    batches = embed_source(model, preprocess, source, positions=mine, batch_size=batch_size)
    return _collect(batches, source, model.device, progress)


def encoded_rows(
    encode: Encode,
    preprocess: Preprocessing,
    source: Source,
    positions: Iterable[int],
    *,
    device: torch.device,
    batch_size: int,
    progress: Progress | None,
) -> EmbeddedRows:
    """Do as `embed_rows`, with any function of images in the model's place, whose processes talk through `device`."""
    batches = encode_source(encode, preprocess, source, positions=_share(positions), batch_size=batch_size)
    return _collect(batches, source, device, progress)


def feature_rows(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    positions: Iterable[int],
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    batch_size: int,
    progress: Progress | None,
) -> EmbeddedRows:
    """Do as `embed_rows`, with the features that a method of the model returns, not of unit length.

    features: maps pixels to (images, width); `model.image_features`, those of a linear probe, when not given.
    """
    return encoded_rows(
        encode_by(model, features or model.image_features),
        preprocess,
        source,
        positions,
        device=model.device,
        batch_size=batch_size,
        progress=progress,
    )


def _share(positions: Iterable[int]) -> list[int]:
    rows = list(positions)
    mine = share(len(rows), world().rank, world().size)
    return rows[mine.start : mine.stop]


def _collect(
    batches: Iterable[EmbeddedBatch], source: Source, device: torch.device, progress: Progress | None
) -> EmbeddedRows:
    vectors: list[Vectors] = []
    kept: list[int] = []
    skipped: list[SkippedRow] = []
    with everybody_fails_together():
        for batch in batches:
            if batch.positions:
                vectors.append(batch.vectors)
            kept.extend(batch.positions)
            skipped.extend(batch.skipped)
            if progress is not None:
                progress(len(batch.positions) + len(batch.skipped))
    rows = EmbeddedRows(np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32), kept, skipped)
    if world().size > 1:
        rows = _everybodys(rows, device)
    if not rows.positions:
        raise DataError(f"{source.name}: {none_readable(rows.skipped)}")
    return rows


def _everybodys(rows: EmbeddedRows, device: torch.device) -> EmbeddedRows:
    """Return the rows of all processes in their order, which is that of the positions, since shares are contiguous."""
    counts = row_counts(len(rows.positions), device)
    width = torch.tensor([rows.vectors.shape[1]], device=device)
    # A process without a readable image does not know the width, but has to take part.
    vectors = torch.from_numpy(rows.vectors.reshape(len(rows.positions), int(max_over_processes(width))))
    skipped = gather_objects(rows.skipped)
    positions = gather_objects(rows.positions)
    return EmbeddedRows(
        gather_rows(vectors.to(device), counts).cpu().numpy(),
        [position for part in positions for position in part],
        [row for part in skipped for row in part],
    )
