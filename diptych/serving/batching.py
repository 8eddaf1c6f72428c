"""Dynamic batching: requests that arrive together go through the model together."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import numpy as np

from diptych.embed.encode import Vectors
from diptych.errors import DiptychError
from diptych.serving.prometheus import Metrics

T = TypeVar("T")

# A batch waits at most this many times its `wait`, even if new items keep coming.
_LONGEST = 4


class OverloadedError(DiptychError):
    """A queue is full. `retry_after`: whole seconds."""

    def __init__(self, queue: str, limit: int, retry_after: int = 1) -> None:
        super().__init__(
            f"the queue of {queue} is full (this server holds at most {limit}); try again in {retry_after} s"
        )
        self.retry_after = retry_after


class Room:
    """Limit how much work of one kind is in the server at a time. Work over the limit is refused at once."""

    def __init__(self, name: str, limit: int, metrics: Metrics) -> None:
        """name: a plural, for messages and metrics."""
        self.name, self.limit = name, limit
        self.taken = 0
        self._metrics = metrics

    @contextlib.contextmanager
    def taking(self, count: int = 1, *, retry_after: int = 1) -> Iterator[None]:
        """Hold `count` places during the body.

        Raises:
            OverloadedError: fewer places are free.
        """
        if self.taken + count > self.limit:
            self._metrics.refused.labels(self.name).inc()
            raise OverloadedError(self.name, self.limit, retry_after)
        self._change(count)
        try:
            yield
        finally:
            self._change(-count)

    def _change(self, count: int) -> None:
        self.taken += count
        self._metrics.queue_depth.labels(self.name).set(self.taken)


class _Entry(Generic[T]):
    """One item of the queue, and the future of its answer."""

    __slots__ = ("answer", "item")

    def __init__(self, item: T, answer: "asyncio.Future[Vectors]") -> None:
        self.item, self.answer = item, answer


class Batcher(Generic[T]):
    """Run the items of many requests through one function, at most `most` at a time, first come first served.

    A batch begins when the model is free and items wait. Clients that were answered ask again soon, so a batch first
    waits for as many items as there were at the end of the last batch. It stops waiting after `wait` seconds without
    a new item, and after 4 times `wait` in all. A single client never waits. The lock `model` is held during a pass:
    batchers that share it take turns, and each fills up while the others compute. Items of cancelled requests are
    dropped before their turn. If the function refuses an item, only that item fails.

    Use it from one event loop, between `start` and `stop`.
    """

    def __init__(
        self,
        modality: str,
        function: Callable[[list[T]], Vectors],
        *,
        most: int,
        wait: float,
        room: Room,
        model: asyncio.Lock,
        executor: Executor,
        metrics: Metrics,
    ) -> None:
        """Args: `function` maps n items to (n, dim); it is called in `executor`."""
        self.room = room
        self._modality, self._function, self._most, self._wait = modality, function, most, wait
        self._model, self._executor, self._metrics = model, executor, metrics
        self._waiting: deque[_Entry[T]] = deque()
        self._arrived = asyncio.Event()
        self._company = 0  # items that were computed or waiting when the last batch ended
        self._task: asyncio.Task[None] | None = None
        self._seconds_per_item = 0.0  # lately; 0 before the first pass

    def start(self) -> None:
        self._task = asyncio.create_task(self._serve(), name=f"batches of {self._modality}")

    async def stop(self) -> None:
        """Stop, and cancel the requests that still wait."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        while self._waiting:
            self._waiting.popleft().answer.cancel()

    def retry_after(self) -> int:
        """Estimate the whole seconds until all present items are computed, 1 to 60."""
        return max(1, min(60, math.ceil(self._seconds_per_item * self.room.taken)))

    async def run(self, items: Sequence[T]) -> Vectors:
        """Compute (n, dim) for n items, at least one. The caller holds n places of `room`."""
        loop = asyncio.get_running_loop()
        entries = [_Entry(item, loop.create_future()) for item in items]
        self._waiting.extend(entries)
        self._arrived.set()
        # gather cancels the other futures when the request is cancelled, or when one of its items fails.
        return np.stack(await asyncio.gather(*(entry.answer for entry in entries)))

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            async with self._model:
                # Take the batch once the model is free, so that items that came meanwhile are in it.
                batch = self._take()
                if batch:
                    await self._compute(batch)
                    self._company = len(batch) + len(self._waiting)

    async def _gather(self) -> None:
        """Wait for the items that are likely to come."""
        clock = asyncio.get_running_loop().time
        end = clock() + _LONGEST * self._wait
        while len(self._waiting) < min(self._company, self._most) and (left := end - clock()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), min(self._wait, left))
            except TimeoutError:
                return

    def _take(self) -> list[_Entry[T]]:
        batch: list[_Entry[T]] = []
        while self._waiting and len(batch) < self._most:
            entry = self._waiting.popleft()
            if not entry.answer.done():
                batch.append(entry)
        if not self._waiting:
            self._arrived.clear()
        else:
            self._arrived.set()
        return batch

    async def _compute(self, batch: list[_Entry[T]]) -> None:
        try:
            rows = await self._pass([entry.item for entry in batch])
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for entry in batch:  # one by one: only the bad item may fail
                await self._compute([entry])
            return
        for entry, row in zip(batch, rows, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(row)

    async def _pass(self, items: list[T]) -> Vectors:
        start = time.perf_counter()
        rows = await asyncio.get_running_loop().run_in_executor(self._executor, self._function, items)
        seconds = time.perf_counter() - start
        self._metrics.batch_size.labels(self._modality).observe(len(items))
        self._metrics.encode_seconds.labels(self._modality).observe(seconds)
        each = seconds / len(items)
        self._seconds_per_item = (
            each if not self._seconds_per_item else 0.9 * self._seconds_per_item + 0.1 * each
        )
        return rows


def _fail(entry: _Entry[T], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
