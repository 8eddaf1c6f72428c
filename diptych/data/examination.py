"""Examine every example of a source in threads, in order, and report the ones that cannot be used."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from diptych.data.example import Example
from diptych.data.images.decoding import read_rgb
from diptych.data.left_out import LeftOut, all_left_out, left_out_of
from diptych.data.reasons import NO_CAPTION, reason_of
from diptych.data.sources.opening import Source
from diptych.errors import DataError

T = TypeVar("T")

_AHEAD = 8  # examples per thread


@dataclass(frozen=True, slots=True)
class Failure:
    """An example that cannot be used. key: the file of its image; empty if even its record cannot be read."""

    position: int
    key: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Finding(Generic[T]):
    """An example that can be used, and what was found in its image."""

    position: int
    example: Example
    found: T


@dataclass
class Verdict:
    """The result for a whole source: read + bad = total. unused: what the source left out when it was opened."""

    total: int
    unused: LeftOut
    bad: list[Failure] = field(default_factory=list)

    @property
    def read(self) -> int:
        return self.total - len(self.bad)

    @property
    def reasons(self) -> dict[str, int]:
        """Count the bad examples by reason, the most frequent first."""
        return dict(Counter(each.reason for each in self.bad).most_common())

    @property
    def left_out(self) -> LeftOut:
        """Return what was unused, and the bad examples, by reason, with the first keys of each."""
        found = all_left_out([self.unused])
        for each in self.bad:
            found.add(each.reason, each.key or f"row {each.position + 1:,}")
        return found


def examine(
    source: Source,
    look: Callable[[Example], T],
    *,
    positions: Iterable[int] | None = None,
    workers: int = 2,
    need_caption: bool = True,
) -> Generator[Finding[T] | Failure, None, None]:
    """Yield what `look` finds in the examples of a source at `positions` (default: all of them), in that order.

    look: called in threads; an example for which it raises DataError is bad.
    workers: the number of threads; 0 works in the thread of the caller.
    need_caption: whether an example without a caption is bad, as it is in training.
    """

    def one(position: int) -> Finding[T] | Failure:
        key = ""
        try:
            example = source[position]
            key = example.key
            if need_caption and not example.captions:
                return Failure(position, key, NO_CAPTION, f"{key}: {NO_CAPTION}")
            return Finding(position, example, look(example))
        except DataError as error:
            return Failure(position, key or error.image or "", reason_of(error), str(error))

    rows = range(len(source)) if positions is None else positions
    return _in_threads(one, rows, workers) if workers else (one(row) for row in rows)


def verify_source(
    source: Source,
    *,
    workers: int = 2,
    need_caption: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Decode every image of a source, and read every caption.

    progress: gets the number of examples done since the last call.
    """
    verdict = Verdict(len(source), left_out_of(source))
    for found in examine(source, _decode, workers=workers, need_caption=need_caption):
        if isinstance(found, Failure):
            verdict.bad.append(found)
        progress(1)
    return verdict


def _decode(example: Example) -> None:
    read_rgb(example.image)


def _in_threads(one: Callable[[int], T], rows: Iterable[int], workers: int) -> Generator[T, None, None]:
    pool = ThreadPoolExecutor(workers, "examine")
    pending: deque[Future[T]] = deque()
    try:
        for row in rows:
            pending.append(pool.submit(one, row))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
