"""How requests and servers end: cancel the work of clients that left, and finish requests under way before stopping."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serving.prometheus import Metrics


class GracefulServer(uvicorn.Server):
    """Run uvicorn and end it in order on SIGTERM and SIGINT.

    On the first signal `stopping` is called, new connections are refused and all requests under way are answered; then
    `run` returns. A second signal ends the server at once. (uvicorn would raise the signal again at the end, and the
    process would seem killed.)
    """

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.stop()

    def stop(self) -> None:
        """Stop as a signal does. Any thread may call it."""
        self._stopping()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class CancelWhenGone:
    """ASGI middleware that cancels a request, and its queued work, when the client closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # At most one message ahead of the application, so that a body does not pile up here.
        messages: asyncio.Queue[Message | Exception] = asyncio.Queue(1)
        gone = False

        async def next_message() -> Message:
            message = await messages.get()
            if isinstance(message, Exception):
                raise message
            return message

        async def answer() -> None:
            await self.app(scope, next_message, send)

        async def watch() -> None:
            nonlocal gone
            message: Message | Exception
            while not gone:
                try:
                    message = await receive()
                except Exception as error:  # an outer layer refuses: a body that is too large, for example
                    await messages.put(error)
                    return
                if message["type"] == "http.disconnect":
                    gone = True
                    answering.cancel()
                else:
                    await messages.put(message)

        answering = asyncio.create_task(answer())
        watching = asyncio.create_task(watch())
        try:
            await answering
        except asyncio.CancelledError:
            if not gone:  # the server cancels, not the client
                answering.cancel()
                raise
        finally:
            watching.cancel()


class RequestMetrics:
    """ASGI middleware that times requests by the template of their route. Paths themselves are not recorded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # nginx's status for a client that left

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            path = getattr(scope.get("route"), "path", "none")
            # A client can invent methods, and each would be a time series of its own.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.request_seconds.labels(method, path, str(status)).observe(
                time.perf_counter() - start
            )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
