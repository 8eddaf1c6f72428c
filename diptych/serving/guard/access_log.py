"""The access log: one line of JSON a request, without its contents.

time        end of the answer, UTC, ISO 8601
method      GET, POST, ...
route       template of the route, such as /v1/items/{id}; null if none matched
status      status of the response; 499 if the client left before it
seconds     from the request's headers to the end of the answer
bytes_in    bytes of the request's body that were read
bytes_out   bytes of the response's body
request     id of the request, also in the header X-Request-ID; the client's own id if it sent a plain one

Paths, query strings, headers and addresses are not logged: they contain queries, file names and people.
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
_LEFT_BEFORE_AN_ANSWER = 499  # nginx's status


class AccessLog:
    """ASGI middleware that writes one line a request to `stream`. It must be the outermost, to see every answer."""

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
    """Return the declared path of the route, with the prefix where it is mounted."""
    route = scope.get("route")
    if route is None:
        return None
    if isinstance(route, Mount):
        return f"{route.path}/*"
    return f"{scope.get('root_path', '')}{route.path}"
