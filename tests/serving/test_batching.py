"""Dynamic batching: what goes through the model together, who is refused, and that nobody's answer changes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.decoding import read_rgb
from diptych.embed.encode import embed_images, embed_texts
from diptych.errors import ImageError, TextError
from diptych.models.image_model import ImageModel
from diptych.serving.batching import Batcher, OverloadedError, Room
from diptych.serving.prometheus import Metrics
from diptych.serving.service import Service
from tests.serving.pictures_for_requests import png

# Of a float32 feature from one batch to another: sums are in another order.
TOLERANCE = 2e-6


class Recorder:
    """A function of numbers that keeps the batches it was given. `gate` lets it go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> np.ndarray:
        self.batches.append(list(items))
        self.gate.wait(10)
        if -1 in items:
            raise ImageError("a bad one")
        return np.array([[item, 2 * item] for item in items], np.float32)


@contextmanager
def batcher(
    function: Callable[[list[int]], np.ndarray], *, most: int = 4, wait: float = 0.05, limit: int = 100
) -> Iterator[Batcher[int]]:
    with ThreadPoolExecutor(1) as executor:
        metrics = Metrics()
        yield Batcher(
            "number",
            function,
            most=most,
            wait=wait,
            room=Room("numbers", limit, metrics),
            model=asyncio.Lock(),
            executor=executor,
            metrics=metrics,
        )


def running(
    body: Callable[[Batcher[int]], Awaitable[None]],
    function: Callable[[list[int]], np.ndarray],
    **options: float,
) -> None:
    async def run() -> None:
        with batcher(function, **options) as made:  # type: ignore[arg-type]
            made.start()
            try:
                await body(made)
            finally:
                await made.stop()

    asyncio.run(run())


def test_requests_that_arrive_together_are_computed_together_in_the_order_of_arrival() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        answers = await asyncio.gather(*(made.run([number]) for number in range(10)))
        assert [int(answer[0, 1]) for answer in answers] == [2 * number for number in range(10)]

    running(body, recorder)
    assert recorder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_full_batch_does_not_wait_for_the_deadline() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        for _ in range(2):
            await asyncio.wait_for(made.run([1, 2, 3, 4]), 60)

    running(body, recorder, wait=3600)
    assert recorder.batches == [[1, 2, 3, 4]] * 2


def test_who_is_alone_does_not_wait_for_the_deadline() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        for _ in range(3):
            await asyncio.wait_for(made.run([1]), 60)

    running(body, recorder, wait=3600)
    assert recorder.batches == [[1]] * 3


def test_after_a_batch_of_several_the_next_waits_for_more() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        await made.run([1, 2])
        first = asyncio.create_task(made.run([3]))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, made.run([4, 5, 6]))

    running(body, recorder, wait=3600)
    assert recorder.batches == [[1, 2], [3, 4, 5, 6]]


def test_a_batch_waits_for_as_many_as_there_were_and_not_for_more() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        recorder.gate.clear()
        first = [asyncio.create_task(made.run([number])) for number in (1, 2)]
        while not recorder.batches:
            await asyncio.sleep(0.001)
        first.append(asyncio.create_task(made.run([3])))  # three are there at the end of the batch
        await asyncio.sleep(0.01)
        recorder.gate.set()
        await asyncio.gather(*first[:2])
        await asyncio.wait_for(asyncio.gather(first[2], made.run([4]), made.run([5])), 60)

    running(body, recorder, wait=3600)
    assert recorder.batches == [[1, 2], [3, 4, 5]]


def test_a_batch_waits_no_longer_once_nobody_comes() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        await made.run([1, 2, 3, 4])
        await asyncio.wait_for(made.run([5]), 60)

    running(body, recorder, wait=0.02)
    assert recorder.batches == [[1, 2, 3, 4], [5]]


def test_what_comes_while_the_model_is_busy_goes_into_the_next_batch() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        recorder.gate.clear()
        first = asyncio.create_task(made.run([1]))
        while not recorder.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(made.run([number])) for number in (2, 3, 4)]
        await asyncio.sleep(0.01)
        recorder.gate.set()
        await asyncio.gather(first, *others)

    running(body, recorder, wait=0.0)
    assert recorder.batches == [[1], [2, 3, 4]]


def test_items_of_a_cancelled_request_are_dropped_before_their_turn() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        recorder.gate.clear()
        first = asyncio.create_task(made.run([1]))
        while not recorder.batches:
            await asyncio.sleep(0.001)
        gone, stays = asyncio.create_task(made.run([2, 3])), asyncio.create_task(made.run([4]))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        recorder.gate.set()
        await asyncio.gather(first, stays)

    running(body, recorder, wait=0.0)
    assert recorder.batches == [[1], [4]]


def test_an_item_that_the_function_refuses_fails_alone() -> None:
    recorder = Recorder()

    async def body(made: Batcher[int]) -> None:
        good, bad, other = await asyncio.gather(
            made.run([1]), made.run([-1]), made.run([2]), return_exceptions=True
        )
        assert isinstance(bad, ImageError)
        assert [answer.tolist() for answer in (good, other)] == [[[1, 2]], [[2, 4]]]  # type: ignore[union-attr]
        assert (await made.run([3])).tolist() == [[3, 6]]  # and the batcher goes on

    running(body, recorder)


def test_stopping_cancels_whoever_still_waits() -> None:
    async def run() -> None:
        with batcher(Recorder()) as made:  # never started: nothing is ever computed
            waiting = asyncio.create_task(made.run([1]))
            await asyncio.sleep(0)
            made.start()
            await made.stop()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(run())


def test_a_full_room_refuses_at_once_and_is_free_again_afterwards() -> None:
    room = Room("texts", 3, Metrics())
    with room.taking(2):
        with (
            pytest.raises(
                OverloadedError, match=r"queue of texts is full .*at most 3.* try again in 7 s"
            ) as refused,
            room.taking(2, retry_after=7),
        ):
            pytest.fail("there was no room for two")
        assert refused.value.retry_after == 7
        with room.taking(1):
            assert room.taken == 3
    assert room.taken == 0


def in_service(service: Service, body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with service:
            await body()

    asyncio.run(run())


def test_batched_answers_equal_single_ones(service: Service, served_clip: ImageModel) -> None:
    texts = [f"{number} red hearts and a {'very ' * (number % 7)}long tail" for number in range(40)]
    files = [png((6 * number, 250 - 6 * number, 99), (20 + number, 40)) for number in range(20)]
    preprocess = service.towers._preprocess

    async def body() -> None:
        together = await asyncio.gather(*(service.texts([text]) for text in texts))
        pictures = await asyncio.gather(*(service.images([file]) for file in files))
        for text, found in zip(texts, together, strict=True):
            alone = embed_texts(served_clip, [text])
            assert np.abs(found - alone).max() < TOLERANCE
        for file, found in zip(files, pictures, strict=True):
            alone = embed_images(served_clip, preprocess, [Image.fromarray(read_rgb(file))])
            assert np.abs(found - alone).max() < TOLERANCE

    in_service(service, body)
    page = service.metrics.page().decode()
    assert (
        'diptych_batch_size_bucket{le="1.0",modality="text"} 1.0' in page
    )  # the first, while the others came
    assert 'diptych_batch_size_sum{modality="text"} 41.0' in page  # and the one that warms up


def test_a_text_is_computed_once(service: Service) -> None:
    async def body() -> None:
        first = await service.texts(["a red heart", "a star", "a red heart"])
        again = await service.texts(["a star", "a red heart"])
        assert np.array_equal(first[0], first[2])
        assert np.array_equal(again, first[[1, 0]])

    in_service(service, body)
    page = service.metrics.page().decode()
    assert 'diptych_encode_seconds_count{modality="text"} 2.0' in page
    assert 'diptych_text_cache_total{result="hit"} 2.0' in page


def test_a_cut_text_is_not_taken_for_a_whole_one(service: Service) -> None:
    async def body() -> None:
        await service.texts(["word " * 100], truncate=True)
        with pytest.raises(TextError, match="102 tokens"):
            await service.texts(["word " * 100])

    in_service(service, body)


def test_a_picture_that_cannot_be_read_is_named_by_its_number(service: Service) -> None:
    async def body() -> None:
        with pytest.raises(ImageError, match=r"image 1: .*not an image"):
            await service.images([png(), b"not a picture"])
        assert (await service.images([png()])).shape == (1, 24)

    in_service(service, body)
