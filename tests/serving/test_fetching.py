"""Pictures from addresses: what is fetched, and that nothing else is ever connected to."""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import ImageError
from diptych.serving.guard import fetching
from diptych.serving.guard.fetching import FetchLimits, fetch, is_public

URLS = [
    line
    for line in (Path(__file__).parent / "attacks" / "ssrf.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
LOOPBACK = "127.0.0.1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Every attempt of this process to connect or to look up a name while one of these lists is set.
_attempts: list[tuple[str, Any]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _attempts is not None and event in ("socket.connect", "socket.getaddrinfo"):
        _attempts.append((event, arguments[1] if event == "socket.connect" else arguments[0]))


sys.addaudithook(_note)


@contextlib.contextmanager
def attempts() -> Iterator[list[tuple[str, Any]]]:
    global _attempts  # noqa: PLW0603 - an audit hook cannot be taken away again
    _attempts = []
    try:
        yield _attempts
    finally:
        _attempts = None


def leads_to(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


HERE = leads_to(LOOPBACK)


class Site:
    """A web server on this machine that answers each path with the bytes it was given, and counts connections."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | list[bytes]] = {}
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(5)
                self.connections += 1
                with contextlib.suppress(OSError):
                    request = connection.recv(65_536)
                    if request == b"stop":
                        return
                    self.requests.append(request)
                    path = request.decode(errors="replace").partition(" ")[2].partition(" ")[0]
                    pages = self.pages.get(path, answer(b"", status="404 Not Found"))
                    for part in [pages] if isinstance(pages, bytes) else pages:
                        connection.sendall(part)

    def close(self) -> None:
        with socket.create_connection((LOOPBACK, self.port)) as last:
            last.sendall(b"stop")
            self._thread.join(30)
        self._listener.close()

    def url(self, path: str, host: str = "pictures.example") -> str:
        return f"http://{host}:{self.port}{path}"


def answer(
    body: bytes, *headers: str, status: str = "200 OK", kind: str = "image/png", length: str | None = None
) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {length or len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def to(place: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {place}", status=status)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    try:
        yield site
    finally:
        site.close()


def limits(site: Site, **changes: Any) -> FetchLimits:
    """Limits under which the site's own address may be fetched from."""
    return replace(FetchLimits(ports=(site.port,), networks=("127.0.0.1/32",), seconds=10), **changes)


def fetched(url: str, limits_: FetchLimits, resolve: Resolve = HERE) -> bytes | str:
    """The bytes, or the message of the refusal."""
    try:
        return asyncio.run(fetch(url, limits_, resolve))
    except ImageError as error:
        return str(error)


def refusals(site: Site) -> tuple[int, list[tuple[str, Any]]]:
    """How many of the attacks are refused, and what was connected to or looked up meanwhile."""
    permitted = FetchLimits(ports=(80, 443, site.port), seconds=5)
    with attempts() as made:
        found = [fetched(url.replace("PORT", str(site.port)), permitted) for url in URLS]
    return sum(isinstance(one, str) and one.startswith("URL: ") for one in found), made


def test_no_attack_connects_to_anything(site: Site) -> None:
    assert len(URLS) >= 80
    assert refusals(site) == (len(URLS), [])
    assert site.connections == 0


def test_a_fetch_that_looks_at_no_address_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "is_public", lambda address: address == ipaddress.ip_address(LOOPBACK))
    _, made = refusals(site)
    assert len(made) >= 10
    assert site.connections >= 10


def test_a_refusal_does_not_tell_what_a_name_leads_to(site: Site) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    messages = {
        fetched(site.url("/"), replace(FetchLimits(), ports=(site.port,)), resolve)
        for resolve in (unknown, leads_to(LOOPBACK), leads_to("10.0.0.1"), leads_to(), leads_to("nonsense"))
    }
    assert messages == {"URL: the host has no public address; upload the file instead"}


def test_one_address_inside_condemns_the_name(site: Site) -> None:
    permitted = replace(FetchLimits(), ports=(site.port,))
    for addresses in (("93.184.216.34", LOOPBACK), ("2606:2800:220:1::1", "::ffff:10.0.0.1")):
        with attempts() as made:
            assert "no public address" in str(fetched(site.url("/"), permitted, leads_to(*addresses)))
        assert made == []


def test_a_name_is_resolved_once_and_the_connection_goes_there(site: Site) -> None:
    """DNS rebinding: the second answer of the name server is another one."""
    site.pages["/a.png"] = answer(PNG)
    asked = []

    async def rebinds(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return [LOOPBACK] if len(asked) == 1 else ["127.0.0.66"]

    with attempts() as made:
        assert fetched(site.url("/a.png"), limits(site), rebinds) == PNG
    assert asked == [("pictures.example", site.port)]
    connected = [address for event, address in made if event == "socket.connect"]
    assert connected == [(LOOPBACK, site.port)]
    assert [host for event, host in made if event == "socket.getaddrinfo"] in ([], [LOOPBACK])
    assert f"Host: pictures.example:{site.port}\r\n".encode() in site.requests[0]


def test_a_request_carries_nothing_of_ours(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.pages["/a.png?x=1"] = answer(PNG)
    assert fetched(site.url("/a.png?x=1#part"), limits(site)) == PNG
    names = {line.partition(b":")[0].lower() for line in site.requests[0].split(b"\r\n")[1:] if line}
    assert names == {b"host", b"accept", b"accept-encoding", b"user-agent", b"connection"}


REDIRECTS_AWAY = [
    "http://127.0.0.2:PORT/",
    "http://[::1]:PORT/",
    "http://0x7f.1:PORT/",
    "//127.0.0.2:PORT/",
    "http://user@pictures.example:PORT/a.png",
    "http://pictures.example:1/a.png",
    "http://pictures.example\\@127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://pictures.example:PORT/",
    "data:image/png;base64,AAAA",
    "http://pictures.example:PORT/ü.png",
]


@pytest.mark.parametrize("place", REDIRECTS_AWAY)
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_goes_through_the_same_gate(place: str, status: str, site: Site) -> None:
    site.pages["/"] = to(place.replace("PORT", str(site.port)), status)
    site.pages["/a.png"] = answer(PNG)
    assert str(fetched(site.url("/"), limits(site))).startswith("URL: ")
    assert site.connections == 1


def test_redirects_are_followed_and_few(site: Site) -> None:
    site.pages |= {f"/{n}": to(f"/{n - 1}") for n in range(1, 9)} | {"/0": answer(PNG)}
    assert fetched(site.url("/3"), limits(site)) == PNG
    assert "more than 3 redirects" in str(fetched(site.url("/4"), limits(site)))
    site.pages["/loop"] = to("/loop")
    before = site.connections
    assert "more than 3 redirects" in str(fetched(site.url("/loop"), limits(site)))
    assert site.connections - before == 4


def test_each_hop_is_resolved_anew(site: Site) -> None:
    site.pages |= {"/": to(site.url("/a.png", "other.example")), "/a.png": answer(PNG)}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [LOOPBACK] if host == "pictures.example" else ["192.168.0.1"]

    assert "no public address" in str(fetched(site.url("/"), limits(site), resolve))
    assert site.connections == 1


SMALL = 1000
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
WRONG_ANSWERS: dict[str, bytes | list[bytes]] = {
    "a page": answer(b"<html>", kind="text/html"),
    "a drawing with scripts": answer(b"<svg/>", kind="image/svg+xml"),
    "anything": answer(PNG, kind="application/octet-stream"),
    "no type": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two types": answer(PNG, "Content-Type: text/html"),
    "compressed": answer(PNG, "Content-Encoding: gzip"),
    "not found": answer(PNG, status="404 Not Found"),
    "a part": answer(PNG, status="206 Partial Content"),
    "a redirect to nowhere": answer(PNG, status="302 Found"),
    "announced too large": answer(PNG, length=str(SMALL + 1)),
    "announced with a lie": answer(PNG, length="-1"),
    "endless": [ENDLESS, *[bytes(500)] * 2000],
    "endless in chunks": [CHUNKED, *[b"1f4\r\n" + bytes(500) + b"\r\n"] * 2000],
    "shorter than announced": answer(PNG, length="500"),
    "endless headers": [b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 500 + b"\r\n"] * 2000],
    "endless notices": [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 5000,
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "nothing": b"",
    "half a line": b"HTTP/1.1 20",
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_a_wrong_answer_is_refused(name: str, site: Site) -> None:
    site.pages["/"] = WRONG_ANSWERS[name]
    message = fetched(site.url("/"), limits(site, bytes=SMALL))
    assert isinstance(message, str)
    assert message.startswith("URL: ")


def test_a_slow_answer_ends_at_the_deadline() -> None:
    """A site that says nothing; the deadline covers everything, the name included."""

    async def takes_for_ever(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        short = FetchLimits(ports=(port,), networks=("127.0.0.1/32",), seconds=0.2)
        for resolve in (leads_to(LOOPBACK), takes_for_ever):
            message = fetched(f"http://pictures.example:{port}/", short, resolve)
            assert message == "URL: no image within 0.2 seconds; upload the file instead"


def test_only_named_hosts_where_any_are_named(site: Site) -> None:
    site.pages["/"] = answer(PNG)
    named = limits(site, hosts=("pictures.example",))
    assert fetched(site.url("/"), named) == PNG
    assert fetched(site.url("/", "PICTURES.example"), named) == PNG
    for host in ("other.example", "pictures.example.evil.example", "evil-pictures.example", LOOPBACK):
        assert "does not fetch from this host" in str(fetched(site.url("/", host), named))
    assert site.connections == 2


def test_https_is_checked_against_the_name_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    async def open_connection(host: str, port: int, **named: Any) -> None:
        seen.update(named, host=host, port=port)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    message = fetched("https://pictures.example/a.png", FetchLimits(), leads_to("93.184.216.34"))
    assert message == "URL: the server does not answer as expected; upload the file instead"
    assert (seen["host"], seen["port"], seen["server_hostname"]) == ("93.184.216.34", 443, "pictures.example")
    assert seen["ssl"].verify_mode == ssl.CERT_REQUIRED
    assert seen["ssl"].check_hostname


def test_https_does_not_lead_back_to_http(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/"] = to(site.url("/a.png"))
    opened = asyncio.open_connection

    async def without_tls(host: str, port: int, **_: Any) -> Any:
        return await opened(host, port)

    monkeypatch.setattr(asyncio, "open_connection", without_tls)
    message = fetched(site.url("/").replace("http:", "https:"), limits(site))
    assert "from https to an unencrypted address" in str(message)
    assert site.connections == 1


def test_a_server_without_tls_is_not_spoken_to_in_tls(site: Site) -> None:
    assert str(fetched(site.url("/").replace("http:", "https:"), limits(site))).startswith("URL: ")


PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 169.254.0.1 169.254.169.254
172.16.0.0 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.255.255 198.18.0.0 198.19.255.255
198.51.100.1 203.0.113.255 224.0.0.0 239.255.255.255 240.0.0.0 255.255.255.255 168.63.129.16
:: ::1 ::7f00:1 ::ffff:8.8.8.8 ::ffff:10.0.0.1 64:ff9b::808:808 64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:2::1
2001:db8::1
2001:10::1 2002:808:808::1 3fff::1 5f00::1 4000::1 fc00::1 fd00:ec2::254 fe80::1 febf::1 fec0::1 ff02::1 ffff::1
""".split()  # noqa: SIM905 - one address a word
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255 169.255.0.0
172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 93.184.216.34
2001:4860:4860::8888 2606:4700::1111 2a00:1450::1 2003::1 2400::1 2c0f::1
""".split()  # noqa: SIM905


def test_which_addresses_are_public() -> None:
    assert [text for text in PRIVATE if is_public(ipaddress.ip_address(text))] == []
    assert [text for text in PUBLIC if not is_public(ipaddress.ip_address(text))] == []


def test_nothing_is_public_that_python_calls_private() -> None:
    """Python's table is another reading of the same registries; each network's first and last address."""
    tables = [
        *ipaddress._IPv4Constants._private_networks,  # type: ignore[attr-defined]
        *ipaddress._IPv6Constants._private_networks,  # type: ignore[attr-defined]
        ipaddress._IPv4Constants._reserved_network,  # type: ignore[attr-defined]
        *ipaddress._IPv6Constants._reserved_networks,  # type: ignore[attr-defined]
        *(ipaddress.ip_network(text) for text in ("224.0.0.0/4", "ff00::/8", "fe80::/10", "fec0::/10")),
    ]
    ends = {address for network in tables for address in (network[0], network[-1])}
    assert [str(address) for address in ends if is_public(address)] == []


def test_a_url_is_what_rfc_3986_says() -> None:
    refused = "URL: expected at most 2,048 characters, all allowed by RFC 3986"
    for character in '\\ \t\r\n\0\x7f"<>^`{|}é\u2025\ud800':
        assert str(fetched(f"http://pictures.example/{character}", FetchLimits())).startswith(refused)
    assert str(fetched("http://pictures.example/" + "a" * 2048, FetchLimits())).startswith(refused)
    assert not re.search("pictures|secret", str(fetched("ftp://u:secret@pictures.example", FetchLimits())))
