"""One line of JSON for each request that was answered, without what was asked for.

time        when the answer was complete, UTC, ISO 8601
method      GET, POST, ...
route       the template of the route, such as /v1/items/{id}; null where none matched
status      of the response; 499 where the client left before there was one
seconds     from the request's headers to the end of the answer
bytes_in    of the request's body, as far as it was read
bytes_out   of the response's body
request     its id, also in the response's header X-Request-ID; the client's own where it sent a plain one

Paths, query strings, headers and addresses are not written: they hold queries, names of files, and people.
"""

import datetime
import json
import re
import time
import uuid
from typing import TextIO

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEFT_BEFORE_AN_ANSWER = 499  # nginx's number


class AccessLog:
    """ASGI middleware that writes a line a request to `stream`; the outermost, so that it sees every answer."""

    def __init__(self, app: ASGIApp, stream: TextIO) -> None:
        self.app = app
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request = given if _PLAIN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request
        status, bytes_in, bytes_out = _LEFT_BEFORE_AN_ANSWER, 0, 0

        async def counted_receive() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request
            bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        finally:
            line = {
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                "method": scope["method"],
                "route": _template(scope),
                "status": status,
                "seconds": round(time.perf_counter() - begun, 6),
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "request": request,
            }
            self.stream.write(json.dumps(line) + "\n")
            self.stream.flush()


def _template(scope: Scope) -> str | None:
    """The path of the route as it was declared, below the prefix that it was mounted on."""
    route = scope.get("route")
    if route is None:
        return None
    if isinstance(route, Mount):
        return f"{route.path}/*"
    return f"{scope.get('root_path', '')}{route.path}"
