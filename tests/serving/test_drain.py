"""The end of a server: whoever is being answered is answered, nobody new comes in, and the exit code is 0."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych import config
from diptych.data.sources.opening import open_source
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.serving.server import address_of, build_server, listening
from diptych.serving.service import Service
from diptych.weights.checkpoint import save_checkpoint
from tests.serving.slow_model import SlowTexts, ask, host_and_port, read_answer, request_of
from tests.tiny_model import preprocessing


def test_requests_under_way_are_answered_and_new_ones_are_refused(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SlowTexts(monkeypatch)
    service = make_service()
    server = build_server(service, service.settings)
    listener = listening("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    while not server.started:
        thread.join(0.01)
    address = host_and_port(address_of(listener))

    async def stop_under_load() -> None:
        model.gate.clear()
        waiting = [asyncio.create_task(ask(address, request_of({"input": f"text {n}"}))) for n in range(6)]
        while service.towers._texts.room.taken < 6:
            await asyncio.sleep(0.005)
        server.stop()
        while True:
            try:
                _, writer = await asyncio.open_connection(*address)
                writer.transport.abort()
                await writer.wait_closed()
            except ConnectionError:
                break
        assert service.draining
        assert not any(task.done() for task in waiting)
        model.gate.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 6

    asyncio.run(asyncio.wait_for(stop_under_load(), 20))
    thread.join(20)
    assert not thread.is_alive()


def test_a_second_signal_ends_a_server_that_is_waiting(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = build_server(make_service(), make_service().settings)
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGTERM, None)
    assert server.force_exit


def test_a_server_that_is_stopping_says_that_it_is_not_ready(make_service: Callable[..., Service]) -> None:
    service = make_service()

    async def ask_before_and_after() -> None:
        async with service:
            assert await service.ready() is None
            build_server(service, service.settings).stop()
            assert await service.ready() == "the server is shutting down"

    asyncio.run(ask_before_and_after())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, served_clip: ImageModel) -> Path:
    """A folder with a tiny checkpoint, and an index that it has filled."""
    folder = tmp_path_factory.mktemp("place")
    save_checkpoint(folder / "model", served_clip, config.plain(preprocessing()))
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(open_source("sample:test")[number].image)  # type: ignore[arg-type]
    encoder = Encoder(served_clip, preprocessing(), str((folder / "model").resolve()))
    refresh(folder / "index", open_source(pictures), encoder)
    return folder


def terminate(place: Path, clients: int) -> tuple[int, list[int]]:
    """Exit code of `diptych serve` that gets SIGTERM under load, and the statuses of all answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "diptych.cli", "serve", "--index", str(place / "index"), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "the server ended before it was ready"
            found = re.search(r"served at (http://\S+)", line)
        log = threading.Thread(target=process.stderr.read)
        log.start()
        statuses = asyncio.run(_load(host_and_port(found[1]), process, clients))
        code = process.wait(30)
        log.join()
        return code, statuses
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


async def _load(address: tuple[str, int], process: subprocess.Popen[str], clients: int) -> list[int]:
    statuses: list[int] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for round_ in range(10_000):
            writer.write(request_of({"input": f"text {number} of {round_}"}))
            status = (await read_answer(reader)).status
            if status == 0:  # closed between two requests
                break
            statuses.append(status)
        writer.transport.abort()

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    while len(statuses) < 2 * clients:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    return statuses


def test_diptych_serve_ends_with_0_on_sigterm_and_answers_nobody_with_an_error(place: Path) -> None:
    code, statuses = terminate(place, 4)
    assert (code, set(statuses)) == (0, {200})


@pytest.mark.nightly
def test_diptych_serve_ends_well_twenty_times(place: Path) -> None:
    for _ in range(20):
        code, statuses = terminate(place, 8)
        assert (code, set(statuses)) == (0, {200})


def test_diptych_serve_refuses_another_host_without_tokens(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diptych.cli", "serve", "--index", str(place / "index"), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "other machines can reach it" in done.stderr
