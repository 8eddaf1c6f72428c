"""What safety costs a server: decoding in a child process, and ordinary requests beside hundreds of slow clients.

    python benchmarks/isolation.py [--repetitions 9] [--crowd 500] [--requests 2000] [--quick]

Decoding: milliseconds for one picture in `DecodingPool` and in place, taking turns; the difference is the way to the
child and back. Slow clients: half-open connections, and bodies that come byte by byte; the same requests are timed
without them and beside them, each on a connection of its own. The clients run in a process of their own.
--quick only sees that it runs.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event

import uvicorn
from preprocess import photograph
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from timing import alternate, describe_machine, median_ratio

from diptych.data.images.decoding import read_rgb
from diptych.serving.guard.connections import GuardedConfig
from diptych.serving.guard.decoding_pool import DecodingPool

SIZES = ((256, 256), (640, 480), (2000, 1500), (4000, 3000))
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--crowd", type=int, default=500, help="slow clients")
    parser.add_argument(
        "--requests", type=int, default=2000, help="ordinary requests without and beside them"
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.repetitions, options.crowd, options.requests = 1, 20, 20
    print(describe_machine("pillow", "uvicorn"))
    compare_decoding(SIZES[:1] if options.quick else SIZES, options.repetitions)
    compare_requests(options.crowd, options.requests)


def compare_decoding(sizes: tuple[tuple[int, int], ...], repetitions: int) -> None:
    with DecodingPool() as pool, asyncio.Runner() as runner:
        for width, height in sizes:
            data = photograph(width, height, seed=0)
            seconds = alternate(
                {
                    "child": lambda data=data: runner.run(pool.decode(data)),  # type: ignore[misc]
                    "in place": lambda data=data: read_rgb(data),  # type: ignore[misc]
                },
                repetitions,
                at_least=0.2,
            )
            child, here = (1e3 * statistics.median(seconds[name]) for name in ("child", "in place"))
            ratio = median_ratio(seconds["child"], seconds["in place"])
            print(
                f"{width} x {height} JPEG: {child:.2f} ms in a child, {here:.2f} ms in place, {ratio:.2f} times"
            )


def compare_requests(crowd: int, count: int) -> None:
    needed = min(crowd + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    config = GuardedConfig(answer, "127.0.0.1", 0)
    with running(config) as port:
        report("alone", timed(port, count))
        spawn = multiprocessing.get_context("spawn")
        ready, done = spawn.Event(), spawn.Event()
        clients = spawn.Process(target=be_slow, args=(port, crowd, ready, done))
        clients.start()
        ready.wait()
        report(f"beside {crowd} slow clients", timed(port, count))
        done.set()
        clients.join()
    print(f"connections: {dict(config.counts)}")


def report(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = (1e3 * ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
    print(f"{len(seconds)} requests {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, all answered 200")


def timed(port: int, count: int) -> list[float]:
    """Seconds of each of `count` requests, one after the other."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(REQUEST)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        found.append(time.perf_counter() - begun)
    return found


def be_slow(port: int, count: int, ready: Event, done: Event) -> None:
    """`count` connections, opened again as often as the server closes them; each sends a byte a second."""
    connections: list[socket.socket] = []

    def opened(number: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.sendall(REQUEST[:20] if number % 2 else UPLOAD)
        return connection

    connections = [opened(number) for number in range(count)]
    ready.set()
    while not done.wait(1.0):
        for number, connection in enumerate(connections):
            try:
                connection.sendall(b"x")
            except OSError:
                connection.close()
                connections[number] = opened(number)
    for connection in connections:
        connection.close()


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for state in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{state}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("x")(scope, receive, send)


@contextlib.contextmanager
def running(config: uvicorn.Config) -> Iterator[int]:
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
