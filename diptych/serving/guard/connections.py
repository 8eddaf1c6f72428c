"""Connections that cost little: deadlines for what a client sends and takes, a cap that stays fair, bounded bodies.

uvicorn alone waits for ever for headers and bodies, and keeps any number of bytes of them. Here a connection
that does not deliver in time is closed, and a full server closes the connection that asks for nothing rather than
turning away one that does.
"""

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from diptych.serving.guard.headers import refuse

_BACKLOG = 256  # connections that the kernel holds until they are accepted, all of them at once
_SPARE_FILES = 128 + _BACKLOG  # descriptors that may be needed beside those of connections
_ANSWER_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long a client may take, and how much it may hold."""

    header_seconds: float = 10.0  # from the connection, or from a request's first byte, to its last header
    body_seconds: float = (
        30.0  # from the last header to the end of the body; and more for what really arrived:
    )
    body_rate: int = 100_000  # bytes a second; a large upload over a slow line is no attack
    send_seconds: float = 30.0  # without the client taking a single byte of its answer
    idle_seconds: int = 15  # between two requests of one connection
    drain_seconds: int = 10  # for requests under way when the server is told to stop
    header_bytes: int = 32_768  # of one request
    connections: int = 512  # open at once


class GuardedConfig(uvicorn.Config):
    """uvicorn's settings for an application on `host` and `port`, under `limits`.

    counts: what happened to connections, by `opened`, `evicted` (closed to make room), `refused` (no room), and
    `late_headers`, `late_body`, `late_answer` (deadlines).
    """

    def __init__(self, app: ASGIApp, host: str, port: int, limits: ConnectionLimits | None = None) -> None:
        self.limits = _within_open_files(limits or ConnectionLimits())
        self.counts: Counter[str] = Counter()
        super().__init__(
            app,
            host=host,
            port=port,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=self.limits.header_bytes,
            timeout_keep_alive=self.limits.idle_seconds,
            timeout_graceful_shutdown=self.limits.drain_seconds,
            access_log=False,  # uvicorn's has query strings
            server_header=False,
            proxy_headers=False,  # a client could write them itself
            log_level="warning",
        )


class GuardedProtocol(H11Protocol):
    """One connection. It is idle, sends headers, sends a body, or is answered; only the last keeps it safe.

    When the server is full, the address that holds the most connections loses the one that has waited longest
    without a request: idle ones first, then those that still send headers, then those that still send a body. On
    one machine all share an address, and a request that arrives in one piece is still served beside any number of
    half-open connections.
    """

    config: GuardedConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = self.config.limits
        self._address = ""  # whom this connection counts for
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0  # loop time at which the present phase began
        self._phase = "headers"
        self._received = 0  # bytes in the present phase
        self._unsent = 0  # bytes of the answer that waited at the last look
        self._taken = 0.0  # loop time at which the client was last seen to have taken some

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = _counted_as(self.client[0] if self.client else "")
        self.config.counts["opened"] += 1
        if len(self.connections) > self._limits.connections and not self._make_room():
            self.config.counts["refused"] += 1
            transport.abort()
            return
        self._enter("headers", self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.transport.is_closing():
            # The last bytes of an answer may still wait for the client to take them.
            self._enter("answer", _ANSWER_CHECK_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY:
            self._enter("body", self._limits.body_seconds)
        elif self.conn.their_state is not h11.IDLE:
            self._enter("answer", _ANSWER_CHECK_SECONDS)
        elif self.conn.trailing_data[0]:
            self._enter("headers", self._limits.header_seconds)
        elif self._phase != "headers":
            # uvicorn closes idle connections by itself, but waits for ever until the last answer is taken.
            self._enter("idle", _ANSWER_CHECK_SECONDS)

    def _enter(self, phase: str, seconds: float) -> None:
        if phase == self._phase and self._timer is not None:
            return
        self._stop_timer()
        self._phase, self._since, self._received = phase, self.loop.time(), 0
        self._timer = self.loop.call_later(seconds, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The timer of the present phase went off: close the connection, or look again later."""
        now = self.loop.time()
        if self._phase in ("headers", "body"):
            seconds = self._limits.header_seconds
            if self._phase == "body":
                seconds = self._limits.body_seconds + self._received / self._limits.body_rate
            left = again = self._since + seconds - now
            late = f"late_{self._phase}"
        else:
            unsent = self.transport.get_write_buffer_size()
            if unsent == 0 or unsent != self._unsent:
                self._unsent, self._taken = unsent, now
            left = self._taken + self._limits.send_seconds - now
            again = min(left, _ANSWER_CHECK_SECONDS)
            late = "late_answer"
        if left <= 0:
            self.config.counts[late] += 1
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(again, self._look)

    def _make_room(self) -> bool:
        """Close one connection that nobody answers. False where all are being answered."""
        others = [one for one in self.connections if isinstance(one, GuardedProtocol) and one is not self]
        open_ones = [one for one in others if not one.transport.is_closing()]
        if len(open_ones) < self._limits.connections:
            return True  # some are on their way out already
        waiting = [one for one in open_ones if one._phase != "answer"]
        if not waiting:
            return False
        held = Counter(one._address for one in [*open_ones, self])
        order = ("idle", "headers", "body")
        victim = min(waiting, key=lambda one: (-held[one._address], order.index(one._phase), one._since))
        if held[victim._address] < held[self._address]:
            return False  # the newcomer's address holds the most, and all of its requests are being answered
        self.config.counts["evicted"] += 1
        victim.transport.abort()
        return True


def _counted_as(address: str) -> str:
    """An IPv4 address itself; the network of an IPv6 address, all of which one customer gets."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # a socket of this machine has no address
        return ""
    return str(found if found.version == 4 else ip_network((found, 64), strict=False))


class BodyLimit:
    """ASGI middleware: bodies are bounded one by one (status 413) and all together (status 503).

    one: bytes of one body. A length that is announced is refused before a byte is read; a body that turns out
    longer raises `HTTPException`, which the application answers as it answers its own.
    together: bytes of the bodies of all requests under way.
    elements: commas and opening brackets of a body that is no form. Reading JSON takes time by its elements, not by
    its bytes, of which pictures have many; and nothing else is answered meanwhile.
    """

    def __init__(
        self, app: ASGIApp, one: int = 26_000_000, together: int = 260_000_000, elements: int = 100_000
    ) -> None:
        self.app = app
        self.one = one
        self.together = together
        self.elements = elements
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if not (announced.isascii() and announced.isdecimal()) or int(announced) > self.one:
            await refuse(send, 413, "Content Too Large", self._too_large)
            return
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        received = elements = 0

        async def bounded_receive() -> Message:
            nonlocal received, elements
            message = await receive()
            body = message.get("body", b"")
            received += len(body)
            self.held += len(body)
            if received > self.one:
                raise HTTPException(413, self._too_large)
            if not is_form:
                elements += body.count(b",") + body.count(b"[") + body.count(b"{")
                if elements > self.elements:
                    raise HTTPException(
                        413, f"a request may hold {self.elements:,} elements; send fewer at once"
                    )
            if self.held > self.together:
                busy = "too many uploads at once; send it again"
                raise HTTPException(503, busy, headers={"Retry-After": "1"})
            return message

        try:
            await self.app(scope, bounded_receive, send)
        finally:
            self.held -= received

    @property
    def _too_large(self) -> str:
        return f"a request may hold {self.one:,} bytes; send fewer pictures, or smaller ones"


def _within_open_files(limits: ConnectionLimits) -> ConnectionLimits:
    """`limits` with no more connections than this process may open files."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=max(1, min(limits.connections, most - _SPARE_FILES)))
