"""Protection against hostile web pages, by the headers of requests and responses.

Every page in a browser on this machine can reach a server on this machine. `TrustedHosts` refuses host names that an
attacker pointed here (DNS rebinding). `SameSite` refuses requests that pages of other sites make. `SecurityHeaders`
forbids browsers to run, frame or share foreign content. All three are ASGI middleware.
"""

import ipaddress
import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serving.guard.tokens import is_loopback

# No inline script or style, nothing from another origin, no plug-in, no frame. `blob:` is for an image that was dropped
# on the page, `data:` for a small image in a style sheet; neither can run a script.
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
PRIVATE = "no-store"  # the default Cache-Control: answers contain private images

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityHeaders:
    """Add `HEADERS` to every response, and `PRIVATE` to a response without its own Cache-Control."""

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
    """Return the values of the header Host that a server on `host` accepts, without ports; None for any value.

    Args: `names` are more names of the server, such as that of a reverse proxy. A server that other machines can reach
    needs a token, and a browser does not send it to a name that an attacker pointed here. So such a server accepts any
    name unless `names` are given.
    """
    given = frozenset(name.lower() for name in names)
    if is_loopback(host):
        return _LOCAL_NAMES | given | {_in_header(host)}
    return given | _LOCAL_NAMES | {_in_header(host)} if given else None


class TrustedHosts:
    """Refuse requests with an unknown, missing or repeated header Host: status 421."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.hosts is not None:
            found = Headers(scope=scope).getlist("host")
            if len(found) != 1 or without_port(found[0]) not in self.hosts:
                detail = (
                    "this server does not answer to the name in the header Host; start it with --name NAME"
                )
                await refuse(send, 421, "Misdirected Request", detail)
                return
        await self.app(scope, receive, send)


class SameSite:
    """Refuse requests that a page of another site makes in a visitor's browser: status 403.

    Following a link from another site is allowed. Other requests from another site are refused: images and scripts
    (by Fetch Metadata), and forms and scripts (by Origin) if the method can change something. Programs other than
    browsers send neither header and are not affected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_foreign(scope["method"], Headers(scope=scope)):
            await refuse(
                send,
                403,
                "Forbidden",
                "a page of another site sent this request; open this server's own address",
            )
            return
        await self.app(scope, receive, send)


def _is_foreign(method: str, headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        # No page can set this header, so it decides alone. Origin would not do: with our Referrer-Policy a browser
        # sends `Origin: null` with the forms of our own page.
        followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return site not in ("same-origin", "none") and not (followed and method in ("GET", "HEAD"))
    origin = headers.get("origin")
    if origin is None or method in _SAFE_METHODS:
        return False
    # Do not compare the scheme: behind a proxy that ends TLS, the server does not know it.
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


async def refuse(send: Send, status: int, title: str, detail: str, **headers: str) -> None:
    """Send a problem (RFC 9457). Underscores in the names of `headers` stand for hyphens."""
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    raw: list[Any] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def without_port(host: str) -> str:
    """Return the lower-case name in a header Host without its port: `[::1]` for `[::1]:8000`."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (port.isdigit() or not port) else host.lower()


def _in_header(host: str) -> str:
    """Return an address to listen on as the header Host writes it."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host.lower()
