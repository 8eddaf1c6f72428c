"""Fetch images from URLs, on servers that allow it, without reaching the server's own network (SSRF).

The server makes the request of a client's URL from its own place: behind the firewall, beside cloud metadata. So every
URL, and every redirect again, must pass the same checks: syntax that all parsers read alike, http or https, no
credentials, a permitted port, and a host name with public addresses only. The name is resolved once and the connection
goes to that address, so a second answer of the name server cannot matter. Bytes, time, redirects and content types are
limited. Proxies, cookies and environment variables are not used.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import h11

from diptych.errors import ImageError

Address: TypeAlias = IPv4Address | IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]  # name, port -> addresses as text


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits on what is fetched."""

    bytes: int = 10_000_000  # of one image
    seconds: float = 5.0  # from the name lookup to the last byte, redirects included
    redirects: int = 3
    ports: tuple[int, ...] = (80, 443)
    content_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp", "image/gif")
    hosts: tuple[str, ...] = ()  # if given, only these names
    networks: tuple[
        str, ...
    ] = ()  # allowed beside public addresses, such as your own image store "10.2.0.0/16"


DEFAULT_LIMITS = FetchLimits()

# Networks that IANA's special-purpose registries (RFC 6890 and its updates) list as not public, and other ways into a
# network: relays and translators that contain an IPv4 address, and Azure's metadata service.
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
# Global unicast. Everything else of IPv6 is not public: loopback, IPv4-mapped, NAT64, unique local, link-local, ...
_PUBLIC_IPV6 = ip_network("2000::/3")

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+", re.IGNORECASE)
# WHATWG: a name that ends in a number is an IPv4 address in one of its many spellings (0x7f.1, 2130706433).
_ENDS_IN_A_NUMBER = re.compile(r"(?:^|\.)(?:0x[0-9a-f]*|[0-9]+)$", re.IGNORECASE)
_URL = re.compile(
    r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2048}"
)  # RFC 3986, and so no backslash and no space
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str
    port: int
    path: str  # with the query


async def resolve(host: str, port: int) -> Sequence[str]:
    """Resolve a name with the system's resolver. Return its addresses in that order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def fetch(url: str, limits: FetchLimits = DEFAULT_LIMITS, resolve: Resolve = resolve) -> bytes:
    """Fetch the image at `url` and return its bytes. `DecodingPool` checks their contents later.

    Raises:
        ImageError: the URL is refused, the server does not answer in time, or the answer is not an image of at most
            `limits.bytes`. The message does not reveal where the name leads.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            return await _follow(url, limits, resolve)
    except TimeoutError as error:
        raise ImageError(
            f"URL: no image within {limits.seconds:g} seconds; upload the file instead"
        ) from error
    except (OSError, h11.ProtocolError) as error:
        # One message for all failures: a client could map the network by different ones.
        raise ImageError("URL: the server does not answer as expected; upload the file instead") from error


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet and is not reached through a translator."""
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)


async def _follow(url: str, limits: FetchLimits, resolve: Resolve) -> bytes:
    for _ in range(limits.redirects + 1):
        target = _parse(url, limits)
        address = await _address_of(target, limits, resolve)
        async with _connect(target, address) as (reader, writer):
            location, body = await _get(reader, writer, target, limits)
        if location is None:
            return body
        onward = urljoin(url, location)
        if target.scheme == "https" and not onward.lower().startswith("https:"):
            raise ImageError(
                "URL: redirects from https to an unencrypted address; give the address of the image itself"
            )
        url = onward
    raise ImageError(f"URL: more than {limits.redirects} redirects; give the address of the image itself")


def _parse(url: str, limits: FetchLimits) -> _Target:
    if not _URL.fullmatch(url):
        raise ImageError(
            "URL: expected at most 2,048 characters, all allowed by RFC 3986; encode other characters with %"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ImageError("URL: not a valid URL; expected https://name/path") from error
    if parts.scheme not in ("http", "https"):
        raise ImageError("URL: expected one that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ImageError("URL: contains a user name or a password; give a URL without them")
    host = (parts.hostname or "").lower()
    port = port if port is not None else {"http": 80, "https": 443}[parts.scheme]
    if port not in limits.ports:
        permitted = ", ".join(map(str, limits.ports))
        raise ImageError(f"URL: port {port} is not permitted; expected one of {permitted}")
    if limits.hosts and host not in limits.hosts:
        raise ImageError("URL: this server does not fetch from this host; upload the file instead")
    if _literal(host, parts.netloc) is None and (not _NAME.fullmatch(host) or _ENDS_IN_A_NUMBER.search(host)):
        raise ImageError("URL: expected the full name of a host, or its IP address in the standard form")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, host, port, path)


def _literal(host: str, netloc: str) -> Address | None:
    """Return the IP address that a URL contains, if it is in standard form; otherwise None."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    bracketed = netloc.startswith("[")
    zoned = isinstance(address, IPv6Address) and address.scope_id is not None
    return None if zoned or bracketed != isinstance(address, IPv6Address) else address


async def _address_of(target: _Target, limits: FetchLimits, resolve: Resolve) -> str:
    """Return the address to connect to. Refuse a name if any of its addresses is not public."""
    literal = _literal(target.host, f"[{target.host}]" if ":" in target.host else target.host)
    try:
        found = (
            [literal] if literal else [ip_address(text) for text in await resolve(target.host, target.port)]
        )
    except (OSError, ValueError, UnicodeError):
        found = []
    permitted = [ip_network(network) for network in limits.networks]
    if not found or not all(is_public(one) or any(one in network for network in permitted) for one in found):
        raise ImageError("URL: the host has no public address; upload the file instead")
    return str(found[0])


@asynccontextmanager
async def _connect(
    target: _Target, address: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    tls = ssl.create_default_context() if target.scheme == "https" else None
    reader, writer = await asyncio.open_connection(
        address, target.port, ssl=tls, server_hostname=target.host if tls else None
    )
    try:
        yield reader, writer
    finally:
        # `close` would wait for the other side.
        writer.transport.abort()


async def _get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: _Target, limits: FetchLimits
) -> tuple[str | None, bytes]:
    """Send the request. Return the address of a redirect and no bytes, or None and the body."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=65_536)
    default_port = {"http": 80, "https": 443}[target.scheme]
    name = f"[{target.host}]" if ":" in target.host else target.host
    request = h11.Request(
        method="GET",
        target=target.path,
        headers=[
            ("Host", name if target.port == default_port else f"{name}:{target.port}"),
            ("Accept", ", ".join(limits.content_types)),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "diptych"),
            ("Connection", "close"),
        ],
    )
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Response):
            location = _location(event, limits)
            if location is not None:
                return location, b""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limits.bytes:
                raise _too_large(limits)
        elif isinstance(event, h11.EndOfMessage):
            return None, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("closed before an answer")


def _location(response: h11.Response, limits: FetchLimits) -> str | None:
    """Return the address of a redirect; None for an image. Raise ImageError for any other response."""
    headers = {name: value.decode("latin-1") for name, value in response.headers}
    if response.status_code in _REDIRECTS and b"location" in headers:
        return headers[b"location"]
    if response.status_code != 200:
        raise ImageError("URL: the server does not answer as expected; upload the file instead")
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind not in limits.content_types:
        raise ImageError(
            f"URL: the content type is not an image format that is fetched; expected {', '.join(limits.content_types)}"
        )
    if headers.get(b"content-encoding", "identity").lower() != "identity":
        raise ImageError("URL: the server compressed the image a second time; upload the file instead")
    if int(headers.get(b"content-length", "0")) > limits.bytes:  # h11 has checked that these are digits
        raise _too_large(limits)
    return None


def _too_large(limits: FetchLimits) -> ImageError:
    return ImageError(
        f"URL: the image is too large; expected at most {limits.bytes:,} bytes; save a smaller copy"
    )
