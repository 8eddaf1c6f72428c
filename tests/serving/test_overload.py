"""Ten times more than the server can do: everybody is answered, most with 429, and nothing piles up."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.serving.slow_model import SlowTexts, ask, ask_all, host_and_port, request_of

Serve = Callable[[Service], AbstractContextManager[str]]

# 20 texts a second. 100 clients that come again at once when they are refused ask for ten times as many, and more.
BATCH, PASS_SECONDS = 4, 0.2
CLIENTS = 100
SMALL = Settings(text_batch=BATCH, text_queue=8, prompts=8, inputs=8, text_cache=0)


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def offered(
    make_service: Callable[..., Service], serve: Serve, count: int
) -> tuple[Counter[int], int, Service]:
    """Statuses of `count` requests, and by how many bytes the process grew."""
    service = make_service(SMALL)
    with serve(service) as url:
        address = host_and_port(url)
        requests = [request_of({"input": f"text {number}"}) for number in range(count)]
        asyncio.run(ask_all(address, requests[:CLIENTS], CLIENTS))  # what is made once is not growth
        gc.collect()
        before = resident_bytes()
        answers = asyncio.run(ask_all(address, requests, CLIENTS))
        grown = resident_bytes() - before
        after = asyncio.run(ask(address, requests[0]))
    assert after.status == 200
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert b"the queue of texts is full" in answer.body
    return Counter(answer.status for answer in answers), grown, service


def check(statuses: Counter[int], grown: int, service: Service, sent: int) -> None:
    assert set(statuses) == {200, 429}
    assert statuses.total() == sent
    assert statuses[429] > statuses[200]
    assert grown < 64_000_000
    assert service.towers._texts.room.taken == 0
    assert "diptych_refused_total" in service.metrics.page().decode()


def test_ten_times_the_capacity_is_answered_200_or_429_in_bounded_memory(
    make_service: Callable[..., Service], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SlowTexts(monkeypatch, PASS_SECONDS)
    check(*offered(make_service, serve, 500), 500)
    assert max(model.sizes) <= BATCH


@pytest.mark.nightly
def test_12000_requests_at_ten_times_the_capacity_is_answered_200_or_429_in_bounded_memory(
    make_service: Callable[..., Service], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowTexts(monkeypatch, PASS_SECONDS)
    check(*offered(make_service, serve, 12_000), 12_000)


def test_a_server_without_a_bound_is_caught(
    make_service: Callable[..., Service], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    SlowTexts(monkeypatch, 0.005)
    monkeypatch.setattr("test_overload.SMALL", Settings(text_batch=BATCH, text_queue=1_000_000, text_cache=0))
    statuses, grown, service = offered(make_service, serve, 300)
    with pytest.raises(AssertionError):
        check(statuses, grown, service, statuses.total())


def test_who_leaves_takes_the_work_along(
    make_service: Callable[..., Service], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SlowTexts(monkeypatch)
    service = make_service(SMALL)

    async def leave(address: tuple[str, int]) -> None:
        model.gate.clear()
        stays = asyncio.create_task(ask(address, request_of({"input": "stays"})))
        while len(model.sizes) < 2:  # the first one warmed up
            await asyncio.sleep(0.005)
        left = [await asyncio.open_connection(*address) for _ in range(5)]
        for number, (_, writer) in enumerate(left):
            writer.write(request_of({"input": f"leaves {number}"}))
        while service.towers._texts.room.taken < 6:
            await asyncio.sleep(0.005)
        for _, writer in left:
            writer.transport.abort()
        while service.towers._texts.room.taken > 1:
            await asyncio.sleep(0.005)
        model.gate.set()
        assert (await stays).status == 200

    with serve(service) as url:
        asyncio.run(asyncio.wait_for(leave(host_and_port(url)), 20))
    assert model.sizes == [1, 1]
