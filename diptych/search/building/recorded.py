"""Fill an index with embeddings from a file, instead of computing them with a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.data.sources.opening import Source
from diptych.embed.embedding_files import EmbeddingsFile
from diptych.embed.encode import Vectors
from diptych.embed.source_rows import EmbeddedBatch, SkippedRow, encode_source
from diptych.errors import DataError
from diptych.search.building.catalogue import Lookup
from diptych.search.stores.image_rows import Half

NOT_RECORDED = "not in the file of embeddings"


class RecordedEmbeddings:
    """The rows of a Parquet file of embeddings, found by the SHA-256 of an image's file.

    So an image may have moved since it was embedded, and a changed image is not mistaken for the old one. Images that
    are not in the file are left out; the next refresh with the model embeds them. The vectors are held in memory, in
    float16, as the index keeps them.

    Raises:
        DataError: the file does not hold embeddings, or has no hashes.
    """

    def __init__(self, path: Path, *, batch_size: int = 64) -> None:
        file = EmbeddingsFile(path)
        missing = [name for name in ("model", "fingerprint") if name not in file.about]
        self.name: str = file.about.get("model", "")
        self.fingerprint: str = file.about.get("fingerprint", "")
        self.dim = file.dim
        self._path, self._batch_size = path, batch_size
        self._vectors: Half = np.empty((len(file), file.dim), np.float16)
        keys = np.empty(len(file), "V16")
        count = 0
        for part in file.parts():
            if missing or any(row.sha256 is None for row in part.rows):
                what = missing[0] if missing else "sha256 of its images"
                raise DataError(f"{path}: lacks the {what}; write it again: diptych embed SOURCE")
            place = slice(count, count + len(part.rows))
            digits = "".join((row.sha256 or "")[:32] for row in part.rows)
            keys[place] = np.frombuffer(bytes.fromhex(digits), "V16")
            self._vectors[place] = part.vectors
            count += len(part.rows)
        file.close()
        self._rows = Lookup(keys)

    def rows(self, source: Source, positions: Iterable[int], *, previews: bool) -> Iterator[EmbeddedBatch]:
        """Yield rows of a source with their recorded vectors; images are decoded only for their previews."""
        batches = encode_source(
            _nothing,
            _no_pixels,
            source,
            positions=positions,
            batch_size=self._batch_size,
            previews=previews,
            hashes=True,
        )
        yield from map(self._with_vectors, batches)

    def _with_vectors(self, batch: EmbeddedBatch) -> EmbeddedBatch:
        rows = [next(self._rows.find(bytes.fromhex(one)[:16]), None) for one in batch.sha256]
        kept = [place for place, row in enumerate(rows) if row is not None]
        absent = tuple(
            SkippedRow(batch.positions[place], uri, NOT_RECORDED, f"{uri}: has no embedding in {self._path}")
            for place, uri in enumerate(batch.uris)
            if rows[place] is None
        )
        return replace(
            batch,
            positions=_chosen(batch.positions, kept),
            examples=_chosen(batch.examples, kept),
            uris=_chosen(batch.uris, kept),
            vectors=self._vectors[[row for row in rows if row is not None]].astype(np.float32),
            skipped=tuple(sorted((*batch.skipped, *absent), key=lambda row: row.position)),
            previews=_chosen(batch.previews, kept) if batch.previews else (),
            sha256=_chosen(batch.sha256, kept),
        )


def _chosen(values: Sequence[Any], places: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[place] for place in places)


def _no_pixels(_: object) -> Tensor:
    return torch.empty(0)


def _nothing(pixels: Sequence[Tensor]) -> Vectors:
    return np.empty((len(pixels), 0), np.float32)
