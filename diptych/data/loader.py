"""Load batches of images and texts for training."""

import collections
import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.data.example import Example
from diptych.data.images.augmentations import random_table
from diptych.data.images.canvas import Canvas
from diptych.data.left_out import LeftOut, all_left_out, left_out_of
from diptych.data.mirrorable import may_mirror
from diptych.data.order import Indices, batches, row_seeds
from diptych.data.reasons import NO_CAPTION, reason_of
from diptych.data.sources.opening import Source
from diptych.data.subsets.joined import parts_of
from diptych.data.subsets.same_images import image_id
from diptych.data.text_sampling import TextSampling, group_id, join_fields, sample_text
from diptych.distributed import World, share
from diptych.errors import DataError, SettingsError

Tokenize = Callable[[Sequence[str]], Tensor]
Hear = Callable[[Example], npt.NDArray[np.float32]]

_AHEAD = 3  # batches
_LARGE = 4096  # rows of a share beyond which one batch ahead is enough, and three would take gigabytes
_PIECE = 16  # rows that a thread reads at once: few enough to divide the work, enough for a cheap hand-over
_CHANCES = 6  # random numbers per row, besides those of its view
_FEW = 10  # bad pairs that never end a run, whatever their fraction


@dataclass(frozen=True)
class _DecodedRow:
    pixels: npt.NDArray[np.uint8]
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: int
    mirrored: bool
    sound: npt.NDArray[np.float32] | None
    image: int | None


@dataclass(frozen=True)
class _RowFailure:
    """An example that cannot be used: the reason to count it by, the whole message, and its name."""

    reason: str
    message: str
    name: str


@dataclass(frozen=True)
class _SampledRow:
    """One row of a batch, without its pixels.

    at: the index of the example in the source.
    bad: the failure of the requested example, if this is its replacement.
    """

    at: int
    text: str
    group: int
    mirrored: bool
    sound: npt.NDArray[np.float32] | None
    image: int | None
    bad: _RowFailure | None


_PieceOfRows = tuple[
    npt.NDArray[np.uint8], list[_SampledRow]
]  # pixels (rows, channels, side, side), and the rest
_BatchAndFailures = tuple[Batch, list[_RowFailure]]


@dataclass
class Loader:
    """An endless stream of batches over a source, equal for equal seeds and positions.

    canvas: reads an image.
    tokenize: turns texts into ids.
    weights: (examples,), see `order.epoch_order`.
    workers: the threads that decode ahead of the consumer; 0 decodes in the consumer's thread, on demand.
    cache: whether to keep decoded images in memory.
    most_bad: the fraction of bad pairs, 0..1, above which the run ends.
    needs_captions: whether an image without a caption is bad; else its text is empty.
    hear: turns an example's sound into (frames, bands), or raises DataError without one. By default sounds are ignored.
    tell_images: whether to identify the images of a batch by a hash of their files.
    world: the processes among which each batch of `batch_size` is shared.

    A pair that cannot be read is replaced by the next good one of the source, which depends only on its index. Over the
    batches returned so far, `asked` counts the requested pairs, `skipped` the bad ones among them by reason, and
    `waited` the seconds that the consumer waited for batches.
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
    needs_captions: bool = True
    hear: Hear | None = None
    tell_images: bool = False
    world: World = field(default_factory=World)
    asked: int = field(default=0, init=False)
    skipped: collections.Counter[str] = field(default_factory=collections.Counter, init=False)
    waited: float = field(default=0.0, init=False)
    _rows: dict[int, _DecodedRow] = field(default_factory=dict, init=False)
    _bad: dict[int, _RowFailure] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.batch_size < self.world.size:
            raise SettingsError(
                f"batch_size {self.batch_size}: is smaller than the number of processes, {self.world.size}; "
                "raise it, or start fewer processes"
            )

    @property
    def left_out(self) -> LeftOut:
        """Return what the source left out, and the examples that could not be read so far, each counted once."""
        bad = LeftOut()
        for _, each in sorted(self._bad.items()):
            bad.add(each.reason, each.name)
        return all_left_out([left_out_of(self.source), bad])

    def batches(self, position: int) -> Generator[Batch, None, None]:
        """Yield this process's share of the batches, from the `position`-th sample of the run on.

        Raises:
            SourceTooDamagedError: more pairs are bad than `most_bad` allows.
            DataError: no pair of the source can be read.
        """
        made = self._made_ahead(position) if self.workers else self._made_when_asked(position)
        with contextlib.closing(made):
            while True:
                start = time.perf_counter()
                batch, bad = next(made)
                self.waited += time.perf_counter() - start
                self._count(len(batch.rows), bad)
                yield batch

    def _global_batches(self, position: int) -> Iterator[tuple[Indices, int]]:
        """Yield the examples of every global batch from a position on, and the position of the first of each."""
        stream = batches(
            self.seed,
            parts_of(self.source),
            self.weights,
            self.batch_size,
            position,
            mixed=getattr(self.source, "mixed", ()),
        )
        return ((indices, position + number * self.batch_size) for number, indices in enumerate(stream))

    def _made_when_asked(self, position: int) -> Generator[_BatchAndFailures, None, None]:
        for indices, at in self._global_batches(position):
            yield self._collate(indices, at, map)

    def _made_ahead(self, position: int) -> Generator[_BatchAndFailures, None, None]:
        ahead = batches_ahead(-(-self.batch_size // self.world.size))
        collator, decoders = ThreadPoolExecutor(1, "collate"), ThreadPoolExecutor(self.workers, "decode")
        pending: collections.deque[Future[_BatchAndFailures]] = collections.deque()
        try:
            for indices, at in self._global_batches(position):
                pending.append(collator.submit(self._collate, indices, at, decoders.map))
                if len(pending) > ahead:
                    yield pending.popleft().result()
        finally:
            # Batches ahead are no longer needed: for a batch of 32,768 they would be a minute of decoding.
            collator.shutdown(wait=False, cancel_futures=True)
            decoders.shutdown(wait=True, cancel_futures=True)
            collator.shutdown(wait=True)

    def _collate(
        self, indices: Indices, position: int, run: Callable[..., Iterator[_PieceOfRows]]
    ) -> _BatchAndFailures:
        """Make this process's rows of a batch; return it with the failures of replaced rows.

        run: `map`, in this thread or in others.
        """
        mine = share(len(indices), self.world.rank, self.world.size)
        rows = slice(mine.start, mine.stop)
        chance = np.random.default_rng((self.seed, position)).random((len(indices), _CHANCES))[rows]
        cuts = range(_PIECE, len(mine), _PIECE)
        canvas = np.empty((0, 0, 0, 0), np.uint8)
        drawn: list[_SampledRow] = []
        for pixels, others in run(self._draw, np.split(indices[rows], cuts), np.split(chance, cuts)):
            # Copied at once: a list of all images beside the batch would take its memory twice.
            if not drawn:
                canvas = np.empty((len(mine), *pixels.shape[1:]), np.uint8)
            canvas[len(drawn) : len(drawn) + len(pixels)] = pixels
            drawn += others
        batch = Batch(
            canvas=torch.from_numpy(canvas),
            tokens=self.tokenize([row.text for row in drawn]),
            groups=torch.tensor([row.group for row in drawn]),
            mirrored=torch.tensor([row.mirrored for row in drawn]),
            chance=random_table(self.seed * 1_000_003 + position, len(indices))[rows],
            position=position,
            rows=torch.tensor([row.at for row in drawn]),
            seeds=torch.from_numpy(row_seeds(self.seed, position + mine.start, len(mine))),
            first=mine.start,
            global_count=len(indices),
            sounds=_stack(row.sound for row in drawn),
            images=torch.tensor([row.image for row in drawn]) if self.tell_images else None,
        )
        return batch, [row.bad for row in drawn if row.bad is not None]

    def _draw(self, indices: Indices, chance: npt.NDArray[np.float64]) -> _PieceOfRows:
        """Read a few rows of a batch. chance: (rows, 6), four numbers for the text and two for the crop."""
        pixels, drawn = [], []
        for index, numbers in zip(indices.tolist(), chance, strict=True):
            at, row = self._read(index)
            pixels.append(self.canvas.crop(row.pixels, numbers[4:]))
            text = sample_text(row.captions, row.tags, self.text, numbers[:4])
            drawn.append(
                _SampledRow(at, text, row.group, row.mirrored, row.sound, row.image, self._bad.get(index))
            )
        return np.stack(pixels), drawn

    def _read(self, index: int) -> tuple[int, _DecodedRow]:
        """Read an example, or the next one that can be read and has a weight; return its index and its row."""
        count = len(self.source)
        for at in itertools.chain(range(index, count), range(index)):
            if at in self._bad or (at != index and self.weights[at] == 0):
                continue
            row = self._rows.get(at)
            if row is not None:
                return at, row
            name = f"{self.source.name}#{at}"
            try:
                example = self.source[at]
                name = example.key
                row = self._row(example)
            except DataError as error:
                self._bad[at] = _RowFailure(reason_of(error), str(error), error.image or name)
                continue
            if self.cache:
                self._rows[at] = row
            return at, row
        raise DataError(
            f"{self.source.name}: none of its pairs can be read; the first error: {self._bad[index].message}"
        )

    def _row(self, example: Example) -> _DecodedRow:
        captions = (
            join_fields(example.captions, example.metadata, self.text.join)
            if self.text.join
            else example.captions
        )
        if not captions:
            if self.needs_captions:
                raise DataError(f"{example.key}: {NO_CAPTION}")
            captions = ("",)
        return _DecodedRow(
            pixels=self.canvas.decode(example),
            captions=captions,
            tags=example.tags,
            group=group_id(captions[0] or example.key),
            mirrored=may_mirror((*captions, *example.tags), exchange_sides=self.text.exchange_sides),
            sound=None if self.hear is None else self.hear(example),
            image=image_id(example.image) if self.tell_images else None,
        )

    def _count(self, rows: int, bad: Sequence[_RowFailure]) -> None:
        # Counted when a batch is returned, not when it is read ahead, so that the counts, and the batch at which a run
        # ends, do not depend on the threads.
        self.asked += rows
        self.skipped.update(each.reason for each in bad)
        total = self.skipped.total()
        if bad and total > _FEW and total > self.most_bad * self.asked:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.most_common())
            raise SourceTooDamagedError(
                f"{self.source.name}: {total:,} of the {self.asked:,} requested pairs cannot be used, more than "
                f"{self.most_bad:.0%} ({counts}); the last error: {bad[-1].message}; check the source with "
                "`diptych data verify`, or raise data.most_bad"
            )


def _stack(sounds: Iterable[npt.NDArray[np.float32] | None]) -> Tensor | None:
    heard = [sound for sound in sounds if sound is not None]
    return torch.from_numpy(np.stack(heard)) if heard else None


def batches_ahead(rows: int) -> int:
    """Return the number of batches to read ahead. rows: of a process's share."""
    return _AHEAD if rows <= _LARGE else 1


class SourceTooDamagedError(DataError):
    """More pairs of a source are bad than a run accepts."""
