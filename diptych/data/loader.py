"""Batches of pictures and texts for training."""

import collections
import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
from diptych.data.text_sampling import TextSampling, join_fields, sample_text
from diptych.distributed import World, share
from diptych.errors import DataError, SettingsError

Tokenize = Callable[[Sequence[str]], Tensor]
Hear = Callable[[Example], npt.NDArray[np.float32]]

_AHEAD = 3  # batches
_LARGE = 4096  # rows of a share beyond which one batch ahead is enough, and three would be gigabytes
_PIECE = 16  # rows that a thread reads at a time: few enough to share out, enough to make handing over cheap
_CHANCES = 6  # random numbers of a row besides those of its view
_FEW = 10  # bad pairs that never end a run, whatever their share


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch, not augmented yet.

    What is random comes from tables of the whole batch, of which these are the share's rows: a sample is drawn
    alike however many processes there are.

    canvas: (rows, channels, side, side), uint8, as the decoder made it.
    tokens: (rows, context), ids of the sampled texts.
    groups: (rows,), int64; equal for pairs with the same first caption.
    mirrored: (rows,), bool; whether left and right may be exchanged.
    chance: (rows, columns), uniform random numbers, one row a sample.
    position: the number of samples that the run had seen before the global batch.
    rows: (rows,), int64, the place of each example in the source; of its replacement where it could not be read.
    seeds: (rows,), int64, see `order.row_seeds`.
    first: the place of the share's first row in the global batch.
    global_count: rows of the global batch.
    sounds: (rows, frames, bands), float32, where the loader hears them; see `sounds.log_mel`.
    images: (rows,), int64, where the loader tells images apart; equal for rows whose image files are equal.
    """

    canvas: Tensor
    tokens: Tensor
    groups: Tensor
    mirrored: Tensor
    chance: Tensor
    position: int
    rows: Tensor
    seeds: Tensor
    first: int
    global_count: int
    sounds: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class _Row:
    pixels: npt.NDArray[np.uint8]
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: int
    mirrored: bool
    sound: npt.NDArray[np.float32] | None
    image: int | None


@dataclass(frozen=True)
class _Bad:
    """Why an example cannot be used: the reason to count it by, and the whole message. name: of the example."""

    reason: str
    message: str
    name: str


@dataclass(frozen=True)
class _Drawn:
    """One row of a batch but for its picture.

    at: the example's place in the source.
    bad: what was wrong with the one asked for, if this is its replacement.
    """

    at: int
    text: str
    group: int
    mirrored: bool
    sound: npt.NDArray[np.float32] | None
    image: int | None
    bad: _Bad | None


_Piece = tuple[npt.NDArray[np.uint8], list[_Drawn]]  # pictures (rows, channels, side, side), and the rest
_Made = tuple[Batch, list[_Bad]]


@dataclass
class Loader:
    """An endless stream of batches over a source, the same for the same seed and position.

    canvas: how a picture is read.
    tokenize: texts to ids.
    weights: (examples,), see `order.epoch_order`.
    workers: threads that decode ahead of the consumer; 0 decodes in the consumer's own, when it asks.
    cache: keep decoded pictures in memory.
    most_bad: the share of pairs, 0..1, that may be bad before the run ends.
    needs_captions: whether a picture without one counts as bad; else its text is empty.
    hear: an example's sound to (frames, bands); DataError where it has none. Not given: sounds are not looked at.
    tell_images: number the images of a batch by the content of their files, which costs a hash of each.
    world: the processes among which each batch of `batch_size` is shared.

    A pair that cannot be read is replaced by the next good one of the source, which is a function of its place alone.
    Over the batches handed out so far, `asked` pairs were asked for, of which `skipped` counts the bad ones by
    reason; the others were read. `waited` is the time in seconds that the consumer waited for them.
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
    _rows: dict[int, _Row] = field(default_factory=dict, init=False)
    _bad: dict[int, _Bad] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.batch_size < self.world.size:
            raise SettingsError(
                f"batch_size {self.batch_size}: fewer rows than the {self.world.size} processes; "
                "raise it, or start fewer"
            )

    @property
    def left_out(self) -> LeftOut:
        """What the source left out, and the examples that could not be read so far: each once, however often drawn."""
        bad = LeftOut()
        for _, each in sorted(self._bad.items()):
            bad.add(each.reason, each.name)
        return all_left_out([left_out_of(self.source), bad])

    def batches(self, position: int) -> Generator[Batch, None, None]:
        """This process's share of the batches from the `position`-th sample of the run on.

        Raises:
            SourceTooDamagedError: more pairs are bad than `most_bad` allows.
            DataError: not one pair of the source can be read.
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
        """The examples of every global batch from a position on, and the positions of their first ones."""
        stream = batches(
            self.seed,
            parts_of(self.source),
            self.weights,
            self.batch_size,
            position,
            mixed=getattr(self.source, "mixed", ()),
        )
        return ((indices, position + number * self.batch_size) for number, indices in enumerate(stream))

    def _made_when_asked(self, position: int) -> Generator[_Made, None, None]:
        for indices, at in self._global_batches(position):
            yield self._collate(indices, at, map)

    def _made_ahead(self, position: int) -> Generator[_Made, None, None]:
        ahead = batches_ahead(-(-self.batch_size // self.world.size))
        collator, decoders = ThreadPoolExecutor(1, "collate"), ThreadPoolExecutor(self.workers, "decode")
        pending: collections.deque[Future[_Made]] = collections.deque()
        try:
            for indices, at in self._global_batches(position):
                pending.append(collator.submit(self._collate, indices, at, decoders.map))
                if len(pending) > ahead:
                    yield pending.popleft().result()
        finally:
            # What was read ahead is not wanted any more: at a batch of 32,768 that would be a minute of decoding.
            collator.shutdown(wait=False, cancel_futures=True)
            decoders.shutdown(wait=True, cancel_futures=True)
            collator.shutdown(wait=True)

    def _collate(self, indices: Indices, position: int, run: Callable[..., Iterator[_Piece]]) -> _Made:
        """This process's rows of a batch, and what was wrong with those that were replaced.

        run: `map`, here or in threads.
        """
        mine = share(len(indices), self.world.rank, self.world.size)
        rows = slice(mine.start, mine.stop)
        chance = np.random.default_rng((self.seed, position)).random((len(indices), _CHANCES))[rows]
        cuts = range(_PIECE, len(mine), _PIECE)
        canvas = np.empty((0, 0, 0, 0), np.uint8)
        drawn: list[_Drawn] = []
        for pixels, others in run(self._draw, np.split(indices[rows], cuts), np.split(chance, cuts)):
            # Into its place at once: a list of all pictures beside the batch would take its memory twice.
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
            sounds=_stacked(row.sound for row in drawn),
            images=torch.tensor([row.image for row in drawn]) if self.tell_images else None,
        )
        return batch, [row.bad for row in drawn if row.bad is not None]

    def _draw(self, indices: Indices, chance: npt.NDArray[np.float64]) -> _Piece:
        """A few rows of a batch. chance: (rows, 6), four numbers for the text and two for the crop."""
        pixels, drawn = [], []
        for index, numbers in zip(indices.tolist(), chance, strict=True):
            at, row = self._read(index)
            pixels.append(self.canvas.crop(row.pixels, numbers[4:]))
            text = sample_text(row.captions, row.tags, self.text, numbers[:4])
            drawn.append(
                _Drawn(at, text, row.group, row.mirrored, row.sound, row.image, self._bad.get(index))
            )
        return np.stack(pixels), drawn

    def _read(self, index: int) -> tuple[int, _Row]:
        """An example, or the next one that can be read and is seen at all, and its place."""
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
                self._bad[at] = _Bad(reason_of(error), str(error), error.image or name)
                continue
            if self.cache:
                self._rows[at] = row
            return at, row
        raise DataError(
            f"{self.source.name}: no pair of it can be read; the first: {self._bad[index].message}"
        )

    def _row(self, example: Example) -> _Row:
        captions = (
            join_fields(example.captions, example.metadata, self.text.join)
            if self.text.join
            else example.captions
        )
        if not captions:
            if self.needs_captions:
                raise DataError(f"{example.key}: {NO_CAPTION}")
            captions = ("",)
        return _Row(
            pixels=self.canvas.decode(example),
            captions=captions,
            tags=example.tags,
            group=group_id(captions[0] or example.key),
            mirrored=may_mirror((*captions, *example.tags), exchange_sides=self.text.exchange_sides),
            sound=None if self.hear is None else self.hear(example),
            image=image_id(example.image) if self.tell_images else None,
        )

    def _count(self, rows: int, bad: Sequence[_Bad]) -> None:
        # When a batch is handed out, not when it is read ahead: so the counts, and the batch at which a run ends,
        # are the same whatever the threads did meanwhile.
        self.asked += rows
        self.skipped.update(each.reason for each in bad)
        total = self.skipped.total()
        if bad and total > _FEW and total > self.most_bad * self.asked:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.most_common())
            raise SourceTooDamagedError(
                f"{self.source.name}: {total:,} of the {self.asked:,} pairs asked for cannot be used, more than "
                f"{self.most_bad:.0%} ({counts}); the last one: {bad[-1].message}; look with `diptych data verify`, "
                "or raise data.most_bad"
            )


def _stacked(sounds: Iterable[npt.NDArray[np.float32] | None]) -> Tensor | None:
    heard = [sound for sound in sounds if sound is not None]
    return torch.from_numpy(np.stack(heard)) if heard else None


def batches_ahead(rows: int) -> int:
    """How many batches are read while one is computed with. rows: of a process's share."""
    return _AHEAD if rows <= _LARGE else 1


class SourceTooDamagedError(DataError):
    """More pairs of a source are bad than a run accepts."""


def group_id(caption: str) -> int:
    """A number for a caption, equal for captions that differ in case and spacing only."""
    normal = " ".join(caption.casefold().split())
    digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def example_weights(
    source: Source, key: str | None, weights: Mapping[str, float], hold_out: Mapping[str, Sequence[str]]
) -> npt.NDArray[np.float64]:
    """How often each example is seen in an epoch, from its metadata; in a mixture, times its source's number.

    key: the metadata field that `weights` is about; what is not named has weight 1.
    hold_out: metadata fields and the values whose examples are never seen.
    """
    result = np.array(getattr(source, "weights", np.ones(len(source))))
    if key is None and not hold_out:
        return result
    for index in range(len(source)):
        metadata = source[index].metadata
        if any(str(metadata.get(name)) in values for name, values in hold_out.items()):
            result[index] = 0.0
        elif key is not None:
            result[index] *= weights.get(str(metadata.get(key)), 1.0)
    if not result.any():
        raise DataError(f"{source.name}: every example is held out or has weight 0")
    return result
