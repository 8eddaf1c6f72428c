"""Slow, many and large: what such clients cost, and that the others are served meanwhile."""

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from diptych.serving.guard.connections import BodyLimit, ConnectionLimits, GuardedConfig, GuardedProtocol

LIMITS = ConnectionLimits(
    header_seconds=10, body_seconds=30, body_rate=1000, send_seconds=20, idle_seconds=5, connections=4
)


class Clock:
    """An event loop of which only the timers work, and only when time is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> "Timer":
        timer = Timer(self, self.now + delay, lambda: callback(*arguments))
        self.timers.append(timer)
        return timer

    def create_task(self, coroutine: Any, **_: Any) -> "Task":
        coroutine.close()  # requests stay unanswered until a test answers them
        return Task()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = first.when
            first.callback()
        self.now = end


class Timer:
    def __init__(self, clock: Clock, when: float, callback: Callable[[], None]) -> None:
        self.clock, self.when, self.callback = clock, when, callback

    def cancel(self) -> None:
        if self in self.clock.timers:
            self.clock.timers.remove(self)


class Task:
    def add_done_callback(self, callback: Callable[..., None]) -> None:
        pass


class Wire:
    """The transport of one connection from `address`."""

    def __init__(self, protocol: H11Protocol, address: str) -> None:
        self.protocol, self.address = protocol, address
        self.unsent = 0  # bytes that the client has not taken
        self.sent = b""
        self.closing = False
        self.gone = False
        protocol.connection_made(self)  # type: ignore[arg-type]

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 50_000) if name == "peername" else None

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        if not self.unsent:
            self.abort()

    def abort(self) -> None:
        self.unsent = 0
        if not self.gone:
            self.closing = self.gone = True
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def receive(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def answer(self, body: bytes = b"x") -> None:
        """What the application does in the end."""
        for message in (
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())],
            },
            {"type": "http.response.body", "body": body},
        ):
            with contextlib.suppress(StopIteration):
                self.protocol.cycle.send(message).send(None)  # type: ignore[arg-type]


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


Connect = Callable[..., Wire]


class House:
    """A server without sockets."""

    def __init__(
        self, limits: ConnectionLimits = LIMITS, protocol: type[H11Protocol] = GuardedProtocol
    ) -> None:
        self.clock = Clock()
        self.config = GuardedConfig(nothing, "127.0.0.1", 0, limits)
        self.config.load()
        self.state = ServerState()
        self.protocol = protocol

    def connect(self, address: str = "127.0.0.1") -> Wire:
        loop: Any = self.clock
        return Wire(self.protocol(self.config, self.state, {}, loop), address)

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.config.counts.items() if name != "opened"}


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPLOAD = b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


def closed_after(wire: Wire, clock: Clock, every: float, data: bytes, most: float = 600) -> float | None:
    """Seconds until the server closes a connection that sends a byte every so often; None where it never does."""
    begun, sent = clock.now, 0
    while clock.now - begun < most:
        if wire.gone:
            return clock.now - begun
        if sent < len(data):
            wire.receive(data[sent : sent + 1])
            sent += 1
        clock.advance(every)
    return None


def slow_clients(protocol: type[H11Protocol]) -> dict[str, float | None]:
    """How long each kind of slow client holds its connection."""
    found = {}
    house = House(protocol=protocol)
    found["silent"] = closed_after(house.connect(), house.clock, 0.5, b"")
    found["trickles headers"] = closed_after(
        house.connect(), house.clock, 0.5, UPLOAD[:-4] + b"\r\nX: " + b"y" * 10_000
    )
    wire = house.connect()
    wire.receive(UPLOAD)
    found["trickles a body"] = closed_after(wire, house.clock, 0.5, b"x" * 90_000)
    wire = house.connect()
    wire.receive(UPLOAD)
    found["stops in a body"] = closed_after(wire, house.clock, 0.5, b"")
    wire = house.connect()
    wire.receive(REQUEST)
    wire.answer()
    found["idle"] = closed_after(wire, house.clock, 0.5, b"")
    wire = house.connect()
    wire.receive(REQUEST)
    wire.answer()
    found["trickles a second request"] = closed_after(
        wire, house.clock, 0.5, UPLOAD[:-4] + b"\r\nX: " + b"y" * 10_000
    )
    wire = house.connect()
    wire.receive(REQUEST)
    wire.unsent = 1000
    wire.answer()
    found["takes no answer"] = closed_after(wire, house.clock, 0.5, b"")
    return found


def test_every_slow_client_is_let_go_at_its_deadline() -> None:
    found = slow_clients(GuardedProtocol)
    assert None not in found.values()
    seconds = {name: float(value or 0) for name, value in found.items()}
    # Half a second is how closely these clients look.
    assert seconds.pop("takes no answer") == pytest.approx(20, abs=1.5)
    assert seconds.pop("idle") == pytest.approx(5, abs=0.5)
    assert seconds.pop("trickles a body") == pytest.approx(30, abs=0.6)
    assert seconds.pop("stops in a body") == pytest.approx(30, abs=0.5)
    assert seconds == pytest.approx(dict.fromkeys(seconds, 10.0), abs=0.5)
    assert set(seconds) == {"silent", "trickles headers", "trickles a second request"}


def test_uvicorn_alone_is_noticed() -> None:
    found = slow_clients(H11Protocol)
    assert {name for name, seconds in found.items() if seconds is None} == set(found) - {"idle"}


def test_a_timer_that_starts_again_with_every_byte_is_noticed() -> None:
    class PerByte(GuardedProtocol):
        def data_received(self, data: bytes) -> None:
            self._stop_timer()
            super().data_received(data)

    found = slow_clients(PerByte)
    assert found["silent"] is not None
    assert found["trickles headers"] is None


def test_a_large_upload_over_a_slow_line_is_no_attack() -> None:
    house = House()
    wire = house.connect()
    wire.receive(UPLOAD)
    for _ in range(99):  # 99 seconds at the rate that is asked for
        wire.receive(b"x" * 1000)
        house.clock.advance(1)
    assert not wire.closing
    wire.receive(b"x" * 1000)
    house.clock.advance(3600)
    assert not wire.closing, "the whole request is here: now the client waits for us"


def test_an_answer_that_takes_long_to_compute_or_to_take_is_no_attack() -> None:
    house = House()
    wire = house.connect()
    wire.receive(REQUEST)
    house.clock.advance(3600)
    assert not wire.closing
    wire.unsent = 100_000
    for _ in range(100):
        wire.unsent -= 1000
        house.clock.advance(15)
    assert not wire.closing


def test_a_request_that_arrives_behind_another_has_its_own_deadline() -> None:
    house = House(replace(LIMITS, idle_seconds=60))
    wire = house.connect()
    wire.receive(REQUEST + REQUEST[:20])
    house.clock.advance(60)
    wire.answer()
    assert not wire.closing
    house.clock.advance(9)
    assert not wire.closing
    house.clock.advance(2)
    assert wire.closing
    assert house.counts == {"late_headers": 1}


def fill(house: House, *addresses: str) -> list[Wire]:
    wires = []
    for address in addresses:
        wires.append(house.connect(address))
        house.clock.advance(0.01)
    return wires


def test_a_full_server_closes_what_waits_and_never_what_is_answered() -> None:
    house = House()
    answered, body, headers, idle = fill(house, *["127.0.0.1"] * 4)
    answered.receive(REQUEST)
    body.receive(UPLOAD)
    headers.receive(REQUEST[:10])
    idle.receive(REQUEST)
    idle.answer()
    for victim in (idle, headers, body):
        newcomer = house.connect()
        newcomer.receive(REQUEST)
        assert victim.closing
        assert not newcomer.closing
    assert not answered.closing
    late = house.connect()
    assert late.closing, "everybody else is being answered"
    assert house.counts == {"evicted": 3, "refused": 1}


def test_of_equals_the_oldest_goes() -> None:
    house = House()
    wires = fill(house, *["127.0.0.1"] * 12)
    assert [wire.closing for wire in wires] == [True] * 8 + [False] * 4


def test_a_crowd_from_one_address_pushes_out_nobody_else() -> None:
    house = House()
    guest = fill(house, "192.0.2.1")[0]
    crowd = fill(house, *["198.51.100.7"] * 50)
    assert not guest.closing
    assert sum(not wire.closing for wire in crowd) == 3


def test_a_crowd_that_is_being_answered_pushes_out_nobody_else() -> None:
    house = House()
    guest = fill(house, "192.0.2.1")[0]
    for wire in fill(house, *["198.51.100.7"] * 3):
        wire.receive(REQUEST)
    assert house.connect("198.51.100.7").closing
    assert not guest.closing


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    house = House()
    guest = fill(house, "2001:db8:1::1")[0]
    crowd = fill(house, *(f"2001:db8:2::{n:x}" for n in range(1, 50)))
    assert not guest.closing
    assert sum(not wire.closing for wire in crowd) == 3


def test_a_server_that_lets_the_oldest_go_whoever_it_is_is_noticed() -> None:
    class Unfair(GuardedProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._address = ""

    house = House(protocol=Unfair)
    guest = fill(house, "192.0.2.1")[0]
    fill(house, *["198.51.100.7"] * 50)
    assert guest.closing


def test_the_cap_leaves_room_for_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (500, 500))
    assert GuardedConfig(nothing, "127.0.0.1", 0).limits.connections == 500 - 384
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert GuardedConfig(nothing, "127.0.0.1", 0).limits.connections == 512


# Bodies.


async def size_of(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def reads_nothing(request: Request) -> Response:
    return PlainTextResponse("fine")


def application() -> Starlette:
    return Starlette(routes=[Route("/size", size_of, methods=["POST"]), Route("/", reads_nothing)])


def post(app: ASGIApp, chunks: list[bytes], length: str | None = None) -> tuple[int, int]:
    """The status, and how many bytes the server read before it; `length` is what the header says."""
    read, status = 0, 0
    left = list(chunks)

    async def receive() -> Message:
        nonlocal read
        part = left.pop(0)
        read += len(part)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [] if length is None else [(b"content-length", length.encode())]
    scope = {
        "type": "http", "method": "POST", "path": "/size", "raw_path": b"/size", "query_string": b"", "root_path": "",
        "headers": headers, "http_version": "1.1", "scheme": "http", "server": ("localhost", 80),
    }  # fmt: skip

    async def answer() -> None:
        await app(scope, receive, send)

    asyncio.run(answer())
    return status, read


BLOCK = bytes(65_536)


def largest_read(app: ASGIApp) -> int:
    """The most bytes that a body makes the server read, with a true length, none, and a false one."""
    many = [BLOCK] * 100
    return max(post(app, many, length)[1] for length in (str(100 * len(BLOCK)), None, "10"))


def test_a_body_is_read_no_further_than_its_limit() -> None:
    app = BodyLimit(application(), one=1_000_000)
    assert post(app, [BLOCK] * 100, str(100 * len(BLOCK))) == (413, 0)
    assert post(app, [BLOCK] * 100) == (413, 16 * len(BLOCK))
    assert post(app, [BLOCK] * 15, str(15 * len(BLOCK))) == (200, 15 * len(BLOCK))
    assert largest_read(app) <= 1_000_000 + len(BLOCK)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", " ", "99999999999999999999", "1,1", "٣"])
def test_a_length_that_is_no_length_is_refused(length: str) -> None:
    app = BodyLimit(application(), one=1000)
    sent = post(app, [b"x"], None)
    assert sent == (200, 1)
    headers = {"content-length": length.encode()}
    response = TestClient(app).post("/size", content=b"x", headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_a_limit_that_trusts_the_header_is_noticed() -> None:
    class Trusting(BodyLimit):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            announced = dict(scope["headers"]).get(b"content-length", b"0")
            inner = self.app if int(announced) <= self.one else super().__call__
            await inner(scope, receive, send)

    assert largest_read(Trusting(application(), one=1_000_000)) > 1_000_000 + len(BLOCK)


def test_a_body_of_many_elements_is_refused_and_a_picture_of_many_bytes_is_not() -> None:
    app = BodyLimit(application(), elements=1000)
    assert post(app, [b"[" * 300 + b"{" * 300, b"," * 401]) == (413, 1001)
    assert post(app, [b"[" * 300 + b"{" * 300, b"," * 400]) == (200, 1000)
    assert post(app, [b'{"image":"' + b"A" * 1_000_000 + b'"}'])[0] == 200
    assert post(BodyLimit(application()), [b"," * 100_001])[0] == 413


def test_the_bodies_of_all_requests_are_bounded_together() -> None:
    statuses: list[int] = []
    held = []

    async def keeps(scope: Scope, receive: Receive, send: Send) -> None:
        await application()(scope, receive, send)
        held.append(limit.held)
        if len(held) < 3:  # the next request comes while this one is under way
            statuses.append((await asyncio.to_thread(post, limit, [BLOCK] * 4))[0])

    limit = BodyLimit(keeps, one=300_000, together=600_000)
    statuses.append(post(limit, [BLOCK] * 4)[0])
    assert sorted(statuses) == [200, 200, 503]
    assert limit.held == 0, "what a request held is given back"


# Real sockets.


@contextlib.contextmanager
def running(config: uvicorn.Config) -> Iterator[int]:
    """Serves in a thread; yields the port."""
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(30)
    assert not thread.is_alive()


def ask(port: int, request: bytes = REQUEST) -> bytes:
    """The status line of one request on a connection of its own; empty where the server just closed it."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(request)
            return connection.recv(65_536).partition(b"\r\n")[0]
        except ConnectionError:
            return b""


class Crowd:
    """Many connections that send little: nothing, half a request, or a body byte by byte."""

    def __init__(self, port: int, count: int) -> None:
        self.connections = []
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            self.connections.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall((b"", REQUEST[: 10 + number % 20], UPLOAD)[number % 3])

    def trickle(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sendall(b"x")

    def closed(self) -> int:
        """How many the server has closed so far."""
        count = 0
        for connection in self.connections:
            connection.setblocking(False)
            try:
                count += not connection.recv(1)
            except BlockingIOError:
                pass
            except OSError:
                count += 1
        return count

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def served_beside(count: int, rounds: int) -> tuple[set[bytes], int]:
    """The status lines that ordinary clients get beside a crowd, and how many of the crowd are closed in the end."""
    limits = replace(ConnectionLimits(), connections=200, header_seconds=2, body_seconds=3)
    with running(GuardedConfig(application(), "127.0.0.1", 0, limits)) as port, Crowd(port, count) as crowd:
        lines = set()
        for _ in range(rounds):
            crowd.trickle()
            lines |= {ask(port) for _ in range(10)}
        deadline = time.monotonic() + 60
        while crowd.closed() < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return lines, crowd.closed()


@pytest.mark.usefixtures("many_files")
def test_500_half_open_and_trickling_connections_disturb_nobody() -> None:
    assert served_beside(500, rounds=5) == ({b"HTTP/1.1 200 OK"}, 500)


@pytest.mark.nightly
@pytest.mark.usefixtures("many_files")
def test_500_such_connections_opened_again_and_again_disturb_nobody() -> None:
    for _ in range(10):
        assert served_beside(500, rounds=50) == ({b"HTTP/1.1 200 OK"}, 500)


@pytest.mark.usefixtures("many_files")
def test_a_cap_that_half_open_connections_use_up_is_noticed() -> None:
    """The broken twin: uvicorn's own cap turns ordinary clients away."""
    own = uvicorn.Config(
        application(), lifespan="off", log_level="critical", limit_concurrency=200, ws="none"
    )
    with running(own) as port, Crowd(port, 250):
        deadline = time.monotonic() + 60
        # Some of the crowd may still wait to be accepted.
        while ask(port) != b"HTTP/1.1 503 Service Unavailable":
            assert time.monotonic() < deadline


HOSTILE_REQUESTS = {
    "a header of 1 MB": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "50,000 headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a path of 1 MB": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a chunk size of 1 MB": b"POST /size HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"0" * 1_000_000,
    "two lengths": b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "an unknown coding": b"POST /size HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
    "a negative length": b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a line break in a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    "a space before a colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a NUL": b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def test_requests_that_are_none_are_refused_and_the_next_is_answered() -> None:
    with running(GuardedConfig(application(), "127.0.0.1", 0)) as port:
        for name, request in HOSTILE_REQUESTS.items():
            line = ask(port, request)
            # The connection is closed with more to read in it: then the refusal may get lost on its way.
            assert line[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 501"), (name, line)
            assert ask(port) == b"HTTP/1.1 200 OK", name


def test_whoever_sends_too_much_reads_why() -> None:
    limited = BodyLimit(application(), one=100_000)
    with running(GuardedConfig(limited, "127.0.0.1", 0)) as port:
        head = b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
        assert ask(port, head + bytes(5_000_000)) == b"HTTP/1.1 413 Request Entity Too Large"
