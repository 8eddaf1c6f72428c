"""Two passes over a source: what its rows say, before minutes are spent on its images; then the images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from diptych.data.example import Example
from diptych.data.sources import Source
from diptych.embed import (
    Preprocessing,
    Progress,
    Skipped,
    Vectors,
    embed_source,
    none_readable,
    read_row,
)
from diptych.errors import DataError
from diptych.models.clip import CLIP

T = TypeVar("T")


@dataclass(frozen=True)
class Survey(Generic[T]):
    """What was picked from each readable row, by its position, in order; and the rows that cannot be read."""

    picked: dict[int, T]
    skipped: list[Skipped]


@dataclass(frozen=True)
class EmbeddedRows:
    """vectors: (len(positions), dim), unit length; `positions` are those of the images that could be read."""

    vectors: Vectors
    positions: list[int]
    skipped: list[Skipped]


def survey(source: Source, pick: Callable[[Example], T]) -> Survey[T]:
    """`pick` of every row that can be read, nothing decoded.

    What `pick` raises comes out: a wrong label is found here, before the first image is embedded.
    """
    picked: dict[int, T] = {}
    skipped: list[Skipped] = []
    for position in range(len(source)):
        row = read_row(source, position)
        if isinstance(row, Skipped):
            skipped.append(row)
        else:
            picked[position] = pick(row)
    if not picked:
        raise DataError(f"{source.name}: {none_readable(skipped)}")
    return Survey(picked, skipped)


def embed_rows(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    positions: Iterable[int],
    *,
    batch_size: int,
    progress: Progress | None,
) -> EmbeddedRows:
    """The embeddings of a source's images in memory; DataError where none can be read."""
    vectors: list[Vectors] = []
    kept: list[int] = []
    skipped: list[Skipped] = []
    for batch in embed_source(model, preprocess, source, positions=positions, batch_size=batch_size):
        vectors.append(batch.vectors)
        kept.extend(batch.positions)
        skipped.extend(batch.skipped)
        if progress is not None:
            progress(len(batch.positions) + len(batch.skipped))
    if not kept:
        raise DataError(f"{source.name}: {none_readable(skipped)}")
    return EmbeddedRows(np.concatenate(vectors), kept, skipped)
