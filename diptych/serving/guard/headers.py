"""Headers against hostile pages: what every response carries, and which requests are refused by theirs.

A server on this machine can be reached by every page in this machine's browsers. `TrustedHosts` keeps out names
that were made to lead here (DNS rebinding), `SameSite` keeps out requests that foreign pages make, and
`SecurityHeaders` tells browsers to run, frame and share nothing that is not ours. All three are ASGI middleware.
"""

import ipaddress
import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serving.guard.tokens import is_loopback

# No inline script or style, nothing from another origin, no plug-in, no frame. `blob:` is what a page calls a picture
# that was dropped on it, and `data:` a small picture in a style sheet; neither can run a script.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
    "referrer-policy": "no-referrer",  # the address of a page holds the query
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}
PRIVATE = "no-store"  # Cache-Control of whatever does not say otherwise: answers hold someone's pictures

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityHeaders:
    """Adds `HEADERS` to every response, and `PRIVATE` where a response does not name its own caching."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", PRIVATE)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def trusted_hosts(host: str, names: Collection[str] = ()) -> frozenset[str] | None:
    """The values of the header Host that a server on `host` answers to, without their ports; None for any.

    names: further names of the server, such as that of the reverse proxy in front of it. A server that others can
    reach demands a token, which a browser does not give to a name that was made to lead here: such a server
    answers to any name unless it was told its names.
    """
    given = frozenset(name.lower() for name in names)
    if is_loopback(host):
        return _LOCAL_NAMES | given | {_in_header(host)}
    return given | _LOCAL_NAMES | {_in_header(host)} if given else None


class TrustedHosts:
    """Refuses requests for another server: a foreign, missing or repeated header Host. Status 421."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.hosts is not None:
            found = Headers(scope=scope).getlist("host")
            if len(found) != 1 or without_port(found[0]) not in self.hosts:
                detail = (
                    "this server does not answer to that name; start it with the name among its trusted hosts"
                )
                await refuse(send, 421, "Misdirected Request", detail)
                return
        await self.app(scope, receive, send)


class SameSite:
    """Refuses requests that a foreign page makes in a visitor's browser. Status 403.

    A link from elsewhere may be followed. Everything else that a browser says comes from elsewhere is refused:
    pictures and scripts (Fetch Metadata), and forms and programs (Origin) where a method can change something.
    Programs that are no browsers send neither header, and are not concerned.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_foreign(scope["method"], Headers(scope=scope)):
            await refuse(send, 403, "Forbidden", "this request was made by a page of another site")
            return
        await self.app(scope, receive, send)


def _is_foreign(method: str, headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        # No page can set this header, and it decides alone: with our Referrer-Policy a browser sends `Origin: null`
        # with the forms of our own page.
        followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not (followed and method in ("GET", "HEAD"))
    origin = headers.get("origin")
    if origin is None or method in _SAFE_METHODS:
        return False
    # The scheme is not compared: behind a proxy that ends TLS the server does not know it.
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


async def refuse(send: Send, status: int, title: str, detail: str, **headers: str) -> None:
    """Sends a problem (RFC 9457); underscores in the names of `headers` stand for hyphens."""
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    raw: list[Any] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def without_port(host: str) -> str:
    """The name in a header Host: `[::1]` of `[::1]:8000`, in small letters."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (port.isdigit() or not port) else host.lower()


def _in_header(host: str) -> str:
    """How the header Host writes an address to listen on."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host.lower()
