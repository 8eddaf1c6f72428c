"""Batches of pictures and texts for training."""

import collections
import hashlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diptych.data.augmentations import random_table
from diptych.data.canvas import Canvas
from diptych.data.example import Example
from diptych.data.order import batches
from diptych.data.sources import Source
from diptych.errors import DataError

Tokenize = Callable[[Sequence[str]], Tensor]

# Words of a caption that a mirrored picture would make wrong.
_HANDED = re.compile(
    r"\b(left|right|leftwards|rightwards|clockwise|counterclockwise|anticlockwise|east|west|flag|letter|letters"
    r"|keycap|digit|number|text|font|brand|logo)\b",
    re.IGNORECASE,
)
_AHEAD = 3  # batches that are read while one is computed with


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How the text of a pair is drawn from its captions and its tags; each is a probability."""

    caption: float = 1.0  # the caption alone; always so where there are no tags
    caption_and_tags: float = 0.0  # the caption and up to three tags; what is left over is tags alone


@dataclass(frozen=True)
class Batch:
    """One global batch, not augmented yet.

    canvas: (batch, channels, side, side), uint8, as the decoder made it.
    tokens: (batch, context), ids of the sampled texts.
    groups: (batch,), int64; equal for pairs with the same first caption.
    mirrored: (batch,), bool; whether left and right may be exchanged.
    chance: (batch, columns), uniform random numbers, one row a sample.
    position: the number of samples that the run had seen before this batch.
    """

    canvas: Tensor
    tokens: Tensor
    groups: Tensor
    mirrored: Tensor
    chance: Tensor
    position: int


@dataclass(frozen=True)
class _Row:
    pixels: npt.NDArray[np.uint8]
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: int
    mirrored: bool


@dataclass
class Loader:
    """An endless stream of batches over a source, the same for the same seed and position.

    canvas: how a picture is read.
    tokenize: texts to ids.
    weights: (examples,), see `order.epoch_order`.
    cache: keep decoded pictures in memory.

    A pair that cannot be read is replaced by the next one of the source, is counted in `skipped` by its reason, and
    ends the run once such pairs are more than `most_bad` of those asked for.
    """

    source: Source
    canvas: Canvas
    tokenize: Tokenize
    batch_size: int
    seed: int
    weights: npt.NDArray[np.float64]
    text: TextSampling = field(default_factory=TextSampling)
    workers: int = 2
    cache: bool = False
    most_bad: float = 0.05
    skipped: collections.Counter[str] = field(default_factory=collections.Counter)
    _rows: dict[int, _Row] = field(default_factory=dict)
    _asked: int = 0

    def batches(self, position: int) -> Generator[Batch, None, None]:
        """Batches from the `position`-th sample of the run on."""
        parts = getattr(self.source, "parts", (len(self.source),))
        stream = batches(self.seed, parts, self.weights, self.batch_size, position)
        with ThreadPoolExecutor(self.workers, "decode") as pool, ThreadPoolExecutor(1, "collate") as collator:
            pending: collections.deque[Any] = collections.deque()
            for indices in stream:
                pending.append(collator.submit(self._collate, indices, position, pool))
                position += self.batch_size
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()

    def _collate(self, indices: npt.NDArray[np.int64], position: int, pool: ThreadPoolExecutor) -> Batch:
        rows = list(pool.map(self._read, indices.tolist()))
        random = np.random.default_rng((self.seed, position)).random((len(rows), 6))
        drawn = list(zip(rows, random, strict=True))
        texts = [sample_text(row.captions, row.tags, self.text, chance[:4]) for row, chance in drawn]
        return Batch(
            canvas=torch.from_numpy(
                np.stack([self.canvas.crop(row.pixels, chance[4:]) for row, chance in drawn])
            ),
            tokens=self.tokenize(texts),
            groups=torch.tensor([row.group for row in rows]),
            mirrored=torch.tensor([row.mirrored for row in rows]),
            chance=random_table(self.seed * 1_000_003 + position, len(rows)),
            position=position,
        )

    def _read(self, index: int) -> _Row:
        self._asked += 1
        for offset in range(len(self.source)):
            at = (index + offset) % len(self.source)
            row = self._rows.get(at)
            if row is not None:
                return row
            if offset and self.weights[at] == 0:
                continue
            try:
                row = self._row(self.source[at])
            except DataError as error:
                self._count(error)
                continue
            if self.cache:
                self._rows[at] = row
            return row
        raise DataError(f"{self.source.name}: no pair of it can be read")

    def _row(self, example: Example) -> _Row:
        if not example.captions:
            raise DataError(f"{example.key}: no caption")
        words = " ".join((*example.captions, *example.tags))
        return _Row(
            pixels=self.canvas.decode(example),
            captions=example.captions,
            tags=example.tags,
            group=group_id(example.captions[0]),
            mirrored=_HANDED.search(words) is None,
        )

    def _count(self, error: DataError) -> None:
        self.skipped[type(error).__name__] += 1
        bad = self.skipped.total()
        if bad > 10 and bad > self.most_bad * self._asked:
            raise SourceTooDamagedError(
                f"{self.source.name}: {bad} of the {self._asked} pairs asked for cannot be read, more than "
                f"{self.most_bad:.0%}; the last one: {error}"
            ) from error


class SourceTooDamagedError(DataError):
    """More pairs of a source are bad than a run accepts."""


def group_id(caption: str) -> int:
    """A number for a caption, equal for captions that differ in case and spacing only."""
    normal = " ".join(caption.casefold().split())
    digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def sample_text(
    captions: Sequence[str], tags: Sequence[str], settings: TextSampling, chance: npt.NDArray[np.float64]
) -> str:
    """One text of a pair. chance: (4,) uniform random numbers."""
    caption = captions[int(chance[0] * len(captions))]
    if not tags or chance[1] < settings.caption:
        return caption
    # A run of tags from a random start: each tag is as likely as the others.
    count = min(1 + int(chance[2] * 3), len(tags))
    start = int(chance[3] * len(tags))
    chosen = [tags[(start + step) % len(tags)] for step in range(count)]
    if chance[1] < settings.caption + settings.caption_and_tags:
        chosen.insert(0, caption)
    return ", ".join(chosen)


def example_weights(
    source: Source, key: str | None, weights: Mapping[str, float], hold_out: Mapping[str, Sequence[str]]
) -> npt.NDArray[np.float64]:
    """How often each example is seen in an epoch, from its metadata.

    key: the metadata field that `weights` is about; what is not named has weight 1.
    hold_out: metadata fields and the values whose examples are never seen.
    """
    result = np.ones(len(source))
    if key is None and not hold_out:
        return result
    for index in range(len(source)):
        metadata = source[index].metadata
        if any(str(metadata.get(name)) in values for name, values in hold_out.items()):
            result[index] = 0.0
        elif key is not None:
            result[index] = weights.get(str(metadata.get(key)), 1.0)
    if not result.any():
        raise DataError(f"{source.name}: every example is held out or has weight 0")
    return result
