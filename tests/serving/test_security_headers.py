"""What every response carries, and which requests of foreign pages and names are refused."""

import itertools
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serving.guard.headers import (
    HEADERS,
    SameSite,
    SecurityHeaders,
    TrustedHosts,
    trusted_hosts,
    without_port,
)

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
READING = {"GET", "HEAD"}


async def fine(request: Request) -> Response:
    return PlainTextResponse("fine")


async def fails(request: Request) -> Response:
    raise ValueError("a mistake of ours")


async def careless(request: Request) -> Response:
    return PlainTextResponse(
        "", headers={"Content-Security-Policy": "default-src *", "Cache-Control": "max-age=60"}
    )


def application() -> Starlette:
    routes = [("/fine", fine), ("/fails", fails), ("/careless", careless)]
    return Starlette(routes=[Route(path, endpoint, methods=METHODS) for path, endpoint in routes])


def client(app: ASGIApp, host: str = "localhost") -> TestClient:
    return TestClient(app, f"http://{host}", raise_server_exceptions=False)


def bare_responses(wrap: Callable[[ASGIApp], ASGIApp]) -> set[tuple[str, str]]:
    """(Method, path) of responses that lack one of our headers or have another value in it."""
    # As in the server: what refuses requests stands inside.
    app = wrap(TrustedHosts(SameSite(application()), frozenset({"localhost"})))
    found = set()
    for method, path in itertools.product(METHODS, ["/fine", "/fails", "/careless", "/missing"]):
        for asking in (client(app), client(app, "foreign.example")):
            response = asking.request(method, path, headers={"Origin": "https://foreign.example"})
            if any(response.headers.get_list(name) != [value] for name, value in HEADERS.items()):
                found.add((method, path))
    return found


def test_every_response_carries_every_header() -> None:
    assert bare_responses(SecurityHeaders) == set()


def test_headers_on_successes_alone_are_noticed() -> None:
    class OnlySuccesses(SecurityHeaders):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def choosing(message: Message) -> None:
                await (send if message.get("status", 200) >= 400 else message_with_headers)(message)

            async def message_with_headers(message: Message) -> None:
                message.setdefault("headers", []).extend(
                    (name.encode(), value.encode()) for name, value in HEADERS.items()
                )
                await send(message)

            await self.app(scope, receive, choosing)

    assert bare_responses(OnlySuccesses)


def test_answers_are_kept_by_no_cache_unless_they_say_so() -> None:
    asking = client(SecurityHeaders(application()))
    assert asking.get("/fine").headers["cache-control"] == "no-store"
    assert asking.get("/careless").headers["cache-control"] == "max-age=60"


def test_the_policy_allows_no_inline_code_and_no_other_origin() -> None:
    policy = dict(part.partition(" ")[::2] for part in HEADERS["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    sources = {word for value in policy.values() for word in value.split()}
    assert sources == {"'none'", "'self'", "blob:", "data:"}
    assert "blob:" not in policy["script-src"]
    assert "data:" not in policy["script-src"]


# Names that a page's author can make lead to this machine, and spellings that a careless comparison lets through.
FOREIGN_HOSTS = [
    "evil.example", "evil.example:8000", "127.0.0.1.nip.io", "localhost.evil.example", "evil.example:127.0.0.1",
    "localhost@evil.example", "127.0.0.2", "0.0.0.0", "[::]", "::1", "[::1", "[::ffff:127.0.0.1]", "localhost:80:80",
    "localhost:x", "localhost.", "local host", "", " ", ":8000", "2130706433", "0x7f000001", "127.1", "xlocalhost",
    "localhost/evil", "localhost#", "localhost?", "localhost,evil.example", "169.254.169.254", "router.local",
]  # fmt: skip
OWN_HOSTS = [
    "localhost",
    "localhost:8000",
    "LocalHost",
    "127.0.0.1",
    "127.0.0.1:1",
    "[::1]",
    "[::1]:8000",
    "localhost:",
]


def statuses(app: ASGIApp, hosts: list[str]) -> dict[str, int]:
    return {host: status_of(app, [(b"host", host.encode())]) for host in hosts}


def status_of(app: ASGIApp, headers: list[tuple[bytes, bytes]], method: str = "GET") -> int:
    """The status for exactly these headers, as no client library would send them."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": "/fine", "raw_path": b"/fine", "query_string": b"", "root_path": "",
        "headers": headers, "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    coroutine = app(scope, receive, send)
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return int(sent[0]["status"])
    raise AssertionError("the middleware waited for something")


async def says_fine(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_server_on_loopback_answers_to_its_own_names_only() -> None:
    app = TrustedHosts(says_fine, trusted_hosts("127.0.0.1"))
    assert statuses(app, OWN_HOSTS) == dict.fromkeys(OWN_HOSTS, 200)
    assert statuses(app, FOREIGN_HOSTS) == dict.fromkeys(FOREIGN_HOSTS, 421)
    assert status_of(app, []) == 421
    assert status_of(app, [(b"host", b"localhost"), (b"host", b"evil.example")]) == 421


def test_a_comparison_by_beginning_or_end_is_noticed() -> None:
    class Suffix(frozenset[str]):
        def __contains__(self, name: object) -> bool:
            return any(str(name).startswith(own) or str(name).endswith(own) for own in self)

    app = TrustedHosts(says_fine, Suffix(trusted_hosts("127.0.0.1") or ()))
    assert statuses(app, FOREIGN_HOSTS) != dict.fromkeys(FOREIGN_HOSTS, 421)


def test_the_names_of_a_server() -> None:
    assert trusted_hosts("0.0.0.0") is None
    assert trusted_hosts("0.0.0.0", ["Pictures.Example"]) == frozenset(
        {"localhost", "127.0.0.1", "[::1]", "0.0.0.0", "pictures.example"}
    )
    assert "[::1]" in (trusted_hosts("::1") or ())
    assert "127.0.0.5" in (trusted_hosts("127.0.0.5") or ())
    assert "proxy.example" in (trusted_hosts("127.0.0.1", ["proxy.example"]) or ())
    assert without_port("[2001:db8::1]:443") == "[2001:db8::1]"


Headers = dict[str, str]
HERE = "localhost:8000"
FOREIGN: list[Headers] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost:8001"},
    {"origin": "http://localhost"},
    {"origin": "http://localhost:8000.evil.example"},
    {"origin": "http://evil.example/http://localhost:8000"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"sec-fetch-site": "cross-site", "origin": f"http://{HERE}"},
    {"sec-fetch-site": "something new"},
]
FOLLOWED_LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN: list[Headers] = [
    {},  # no browser
    {"origin": f"http://{HERE}"},
    {"origin": f"https://{HERE}"},  # behind a proxy that ends TLS
    {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "origin": f"http://{HERE}"},
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
]


def answered(app: ASGIApp, method: str, headers: Headers) -> bool:
    raw = [(b"host", HERE.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    return status_of(app, raw, method) == 200


def let_through(app: ASGIApp) -> list[tuple[str, Headers]]:
    """What a foreign page can make a browser send, and this server answer, with an effect."""
    changing = [method for method in METHODS if method not in {*READING, "OPTIONS"}]
    return [(method, headers) for method in changing for headers in FOREIGN if answered(app, method, headers)]


def test_a_foreign_page_changes_nothing() -> None:
    assert let_through(SameSite(says_fine)) == []


def test_a_foreign_page_embeds_nothing_but_may_link_here() -> None:
    app = SameSite(says_fine)
    for headers in FOREIGN:
        assert answered(app, "GET", headers) == ("sec-fetch-site" not in headers)
    assert answered(app, "GET", FOLLOWED_LINK)
    assert not answered(app, "POST", FOLLOWED_LINK)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("headers", OWN)
def test_the_own_page_and_programs_are_answered(method: str, headers: Headers) -> None:
    assert answered(SameSite(says_fine), method, headers)


def test_a_check_that_forgets_delete_is_noticed() -> None:
    class ForgetsDelete(SameSite):  # Ray's CVE-2026-27482
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            inner = self.app if scope["method"] == "DELETE" else SameSite(self.app)
            await inner(scope, receive, send)

    assert {method for method, _ in let_through(ForgetsDelete(says_fine))} == {"DELETE"}


def test_a_check_of_origin_by_its_beginning_is_noticed() -> None:
    class Prefix(SameSite):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            origin = dict(scope["headers"]).get(b"origin", b"").decode()
            own = origin.startswith(f"http://{HERE}")
            await (self.app if own else SameSite(self.app))(scope, receive, send)

    assert let_through(Prefix(says_fine))
