"""Limits on connections: deadlines for sending and receiving, a fair limit on their number, limits on bodies.

uvicorn alone waits for ever for headers and bodies, and stores any number of their bytes. Here a connection that is too
slow is closed. A full server closes a connection without a request, instead of refusing a new one with a request.
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

_BACKLOG = 256  # connections that the kernel holds until they are accepted, possibly all at once
_SPARE_FILES = 128 + _BACKLOG  # descriptors for other uses than connections
_ANSWER_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the time and the resources of a client."""

    header_seconds: float = 10.0  # from the connection, or from a request's first byte, to its last header
    body_seconds: float = (
        30.0  # from the last header to the end of the body, plus time for the bytes that arrived:
    )
    body_rate: int = 100_000  # bytes a second; a large upload over a slow line is not an attack
    send_seconds: float = 30.0  # in which the client takes no byte of its answer
    idle_seconds: int = 15  # between two requests of one connection
    drain_seconds: int = 10  # for requests under way when the server is told to stop
    header_bytes: int = 32_768  # of one request
    connections: int = 512  # open at once


class GuardedConfig(uvicorn.Config):
    """Configure uvicorn for an application on `host` and `port`, under `limits`.

    Attributes: `counts` counts connections by `opened`, `evicted` (closed to make room), `refused` (no room), and
    `late_headers`, `late_body`, `late_answer` (missed deadlines).
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
            access_log=False,  # uvicorn's log has query strings
            server_header=False,
            proxy_headers=False,  # a client could send these headers itself
            log_level="warning",
        )


class GuardedProtocol(H11Protocol):
    """One connection. Its phase is idle, headers, body or answer; only a connection being answered is never evicted.

    When the server is full, the address with the most connections loses one: an idle one first, then one that still
    sends headers, then one that still sends a body; among these the oldest. Clients on one machine share an address.
    Even so a request that arrives in one piece is served beside any number of half-open connections.
    """

    config: GuardedConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = self.config.limits
        self._address = ""  # the address or network that this connection counts for
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0  # loop time at which the present phase began
        self._phase = "headers"
        self._received = 0  # bytes in the present phase
        self._unsent = 0  # bytes of the answer that waited at the last look
        self._taken = 0.0  # loop time when the client last took some

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
            # The client may still have to take the last bytes of an answer.
            self._enter("answer", _ANSWER_CHECK_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY:
            self._enter("body", self._limits.body_seconds)
        elif self.conn.their_state is not h11.IDLE:
            self._enter("answer", _ANSWER_CHECK_SECONDS)
        elif self.conn.trailing_data[0]:
            self._enter("headers", self._limits.header_seconds)
        elif self._phase != "headers":
            # uvicorn closes idle connections itself, but waits for ever for a client to take the last answer.
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
        """Handle the timer of the present phase: close the connection, or check again later."""
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
        """Close one connection that is not being answered. Return False if all are."""
        others = [one for one in self.connections if isinstance(one, GuardedProtocol) and one is not self]
        open_ones = [one for one in others if not one.transport.is_closing()]
        if len(open_ones) < self._limits.connections:
            return True  # some are closing already
        waiting = [one for one in open_ones if one._phase != "answer"]
        if not waiting:
            return False
        held = Counter(one._address for one in [*open_ones, self])
        order = ("idle", "headers", "body")
        victim = min(waiting, key=lambda one: (-held[one._address], order.index(one._phase), one._since))
        if held[victim._address] < held[self._address]:
            return False  # the new connection's address holds the most, and all of its requests are being answered
        self.config.counts["evicted"] += 1
        victim.transport.abort()
        return True


def _counted_as(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address, which one customer has as a whole."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # a socket of this machine has no address
        return ""
    return str(found if found.version == 4 else ip_network((found, 64), strict=False))


class BodyLimit:
    """ASGI middleware that limits each body (status 413) and all bodies together (status 503).

    Args:
        one: bytes of one body. A larger announced length is refused before a byte is read. A body that turns out
            larger raises `HTTPException`, which the application answers like its own.
        together: bytes of the bodies of all requests under way.
        elements: commas and opening brackets of a body that is not a form. The time to parse JSON grows with its
            elements, not with its bytes (images have many), and blocks all other requests.
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
                        413,
                        f"body: too many elements; expected at most {self.elements:,}; send fewer at once",
                    )
            if self.held > self.together:
                busy = "the server is receiving too many uploads; send this request again later"
                raise HTTPException(503, busy, headers={"Retry-After": "1"})
            return message

        try:
            await self.app(scope, bounded_receive, send)
        finally:
            self.held -= received

    @property
    def _too_large(self) -> str:
        return f"body: too large; expected at most {self.one:,} bytes; send fewer images, or smaller ones"


def _within_open_files(limits: ConnectionLimits) -> ConnectionLimits:
    """Return `limits` with no more connections than this process may open files."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=max(1, min(limits.connections, most - _SPARE_FILES)))
