"""Hostile strings and bodies against the whole application: no script of theirs runs, no file of ours leaves."""

import asyncio
import contextlib
import html.parser
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import chromium
import jinja2
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from diptych.data.example import Example
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.serving.app import create_app
from diptych.serving.guard import headers
from diptych.serving.guard.decoding_pool import DecodingPool
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.page import static as page_static
from diptych.serving.server import build_service
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.serving.pictures_for_requests import data_uri, png
from tests.tiny_model import preprocessing

HARMLESS = "harmless"


def attacks(name: str) -> list[str]:
    lines = (Path(__file__).parent / "attacks" / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("# ")]


SCRIPTS = attacks("xss.txt")
PATHS = attacks("traversal.txt")


class Pictures:
    """A source whose pictures are called, captioned, labelled and tagged by the given words."""

    name = "hostile"
    fingerprint = "0" * 64

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, position: int) -> Example:
        words = self.words[position]
        return Example(
            key=f"{position} {words}",
            image=png((position % 256, 90, 30)),
            captions=(words,),
            tags=(words,),
            label=words,
            metadata={"note": words, words: "x"},
        )

    def describe(self) -> str:
        return ""


def database_of(words: list[str], clip: ImageModel) -> MemoryDatabase:
    database = MemoryDatabase()
    refresh(database, Pictures(words), Encoder(clip, preprocessing(), "tiny"))
    return database


@pytest.fixture(scope="module")
def hostile(served_clip: ImageModel) -> MemoryDatabase:
    return database_of(SCRIPTS, served_clip)


@pytest.fixture
def asking(make_service: Callable[..., Service], hostile: MemoryDatabase) -> Iterator[TestClient]:
    """A client of an application over pictures with hostile names."""
    service = make_service(database=hostile)
    with client_of(create_app(service, service.settings)) as client:
        yield client


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False)


# Pages


class Elements(html.parser.HTMLParser):
    """The kinds of elements of a page, each with the names of its attributes; and what its addresses begin with."""

    ADDRESSES = frozenset(
        {"href", "src", "srcset", "action", "formaction", "data-fallback", "poster", "data"}
    )

    def __init__(self, text: str) -> None:
        super().__init__()
        self.kinds: set[tuple[str, ...]] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            own = (value or "").startswith(("/", "#")) and not (value or "").startswith(("//", "/\\"))
            if name in self.ADDRESSES and not own:
                self.kinds.add(("a foreign address", name, value or ""))
        self.kinds.add((tag, *sorted(name for name, _ in attrs)))

    def handle_comment(self, data: str) -> None:
        self.kinds.add(("a comment", data))

    def unknown_decl(self, data: str) -> None:
        self.kinds.add(("a declaration", data))


def in_all_fields(words: str) -> list[str]:
    """One address of a page that shows what it was asked, in each of its fields."""
    terms = ["q", "not", "like", "unlike", "picture", "notpicture"]
    filters = ["name", "caption", "label", "tags", "shape", "width", "height", "after", "before", "filter"]
    filters += ["taken_from", "taken_to", "camera", "near"]
    numbers = ["q_weight", "min", "hide", "unique", "variety", "offset", "sort"]
    pairs = [(name, words) for name in terms + filters + numbers]
    return ["/?" + urlencode(pairs)]


def everywhere(words: str) -> list[str]:
    """Addresses of all the pages that show what they were asked."""
    return [
        *in_all_fields(words),
        "/?" + urlencode([("q", words), ("not", words), ("caption", words)]),
        "/?" + urlencode([("caption", words), ("name", words), ("tags", words), ("label", words)]),
        "/login?" + urlencode({"next": words}),
        "/theme?" + urlencode({"next": words, "theme": words}),
    ]


def kinds_of(client: TestClient, addresses: list[str]) -> set[tuple[str, ...]]:
    """What the pages of some addresses consist of; every answer that is no page cannot be taken for one."""
    found: set[tuple[str, ...]] = set()
    for address in addresses:
        answer = client.get(address)
        found |= kinds_in(answer.headers, answer.text)
    return found


def kinds_in(head: Any, text: str) -> set[tuple[str, ...]]:
    assert head["x-content-type-options"] == "nosniff"
    assert head["content-security-policy"] == headers.CONTENT_SECURITY_POLICY
    if head["content-type"].startswith("text/html"):
        return Elements(text).kinds
    assert head["content-type"] in ("application/json", "application/problem+json")
    return set()


def upload_of(client: TestClient, words: str) -> set[tuple[str, ...]]:
    answer = client.post("/", data={"q": words}, files={"file": (words, b"no picture", words[:50])})
    return kinds_in(answer.headers, answer.text)


def ordinary(client: TestClient) -> set[tuple[str, ...]]:
    """What pages consist of where nothing is hostile."""
    long = "word " * 380
    shown = everywhere(HARMLESS) + everywhere(long.strip())
    shown += [
        "/?q=a&q=b&not=c",
        "/?q=a&q_weight=2",
        "/?shape=square&unique=1&width=3&after=2020-01-01",
        "/?min=0.1&q=a",
        "/",
    ]
    shown += ["/?offset=48", f"/pictures/{'0' * 32}"]
    found = kinds_of(client, shown) | upload_of(client, HARMLESS)
    items = client.get("/v1/items").json()["items"]
    return found | kinds_of(
        client, [f"/pictures/{items[0]['id']}", f"/?like={items[0]['id']}&unlike={items[1]['id']}"]
    )


Addresses = Callable[[str], list[str]]


def injected(
    client: TestClient, known: set[tuple[str, ...]], words: list[str], addresses: Addresses
) -> dict[str, set[tuple[str, ...]]]:
    """The elements and attributes that are on pages because of a question, by the question."""
    found = {word: kinds_of(client, addresses(word)) | upload_of(client, word) for word in words}
    return {word: kinds - known for word, kinds in found.items() if kinds - known}


@pytest.fixture(scope="module")
def known(make_service: Callable[..., Service], served_clip: ImageModel) -> set[tuple[str, ...]]:
    """What pages consist of over pictures with harmless names."""
    service = make_service(
        database=database_of([f"{HARMLESS} {number}" for number in range(60)], served_clip)
    )
    with client_of(create_app(service, service.settings)) as client:
        return ordinary(client)


def unescaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the page: what comes from outside is put into it as it is."""
    environment = jinja2.Environment

    def careless(**options: Any) -> jinja2.Environment:
        return environment(**options | {"autoescape": False})

    monkeypatch.setattr(jinja2, "Environment", careless)


def test_there_are_as_many_attacks_as_promised() -> None:
    assert len(set(SCRIPTS)) >= 200
    assert len(set(PATHS)) >= 500


def test_a_question_becomes_no_element_of_a_page(asking: TestClient, known: set[tuple[str, ...]]) -> None:
    assert injected(asking, known, SCRIPTS, in_all_fields) == {}


@pytest.mark.nightly
def test_a_question_becomes_no_element_of_any_page(asking: TestClient, known: set[tuple[str, ...]]) -> None:
    assert injected(asking, known, SCRIPTS, everywhere) == {}


def index_pages(client: TestClient) -> list[str]:
    ids = []
    after = ""
    while True:
        page = client.get("/v1/items", params={"limit": 200} | ({"after": after} if after else {})).json()
        ids += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    return [f"/?offset={offset}" for offset in range(0, len(SCRIPTS), 48)] + [
        f"/pictures/{id_}" for id_ in ids
    ]


def test_names_captions_labels_and_tags_become_no_element_of_a_page(
    asking: TestClient, known: set[tuple[str, ...]]
) -> None:
    pages = index_pages(asking)
    assert len(pages) > len(SCRIPTS)
    assert kinds_of(asking, pages) - known == set()


def test_a_page_that_escapes_nothing_is_noticed(
    make_service: Callable[..., Service],
    hostile: MemoryDatabase,
    known: set[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unescaped(monkeypatch)
    service = make_service(database=hostile)
    with client_of(create_app(service, service.settings)) as client:
        # Some are no elements even where nothing is escaped: parts of scripts, of addresses, of templates.
        assert len(injected(client, known, SCRIPTS[::20], in_all_fields)) > len(SCRIPTS[::20]) / 2
        assert kinds_of(client, index_pages(client)[:5]) - known != set()


@pytest.mark.parametrize(
    "words", [*SCRIPTS[:3], "//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example"]
)
def test_a_redirect_leads_nowhere_else(asking: TestClient, words: str) -> None:
    for path in ("/theme", "/login"):
        answer = asking.get(path, params={"next": words, "theme": "dark"}, follow_redirects=False)
        place = answer.headers.get("location", "/")
        assert place.startswith("/")
        assert not place.startswith(("//", "/\\"))


def test_the_api_says_nothing_that_a_browser_takes_for_a_page(asking: TestClient) -> None:
    for words in SCRIPTS[::5]:
        parts = [{"id": words}, {"text": words, words: 1}, {"image": words}]
        answers = [
            asking.post("/v1/search", json={"query": words, "filter": words}),
            *(asking.post("/v1/search", json={"query": [part]}) for part in parts),
            asking.get("/v1/items", params={"filter": words, "after": words}),
            asking.get("/v1/items/" + urlencode({"": words})[1:]),
            asking.post("/v1/embeddings", json={"input": [words], "model": words}),
        ]
        for answer in answers:
            assert answer.status_code != 500
            assert kinds_in(answer.headers, answer.text) == set()


def test_results_as_a_table_hold_no_formula(asking: TestClient) -> None:
    answer = asking.get("/results.csv?q=x")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    cells = [cell for line in answer.text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.strip('"').startswith(("=", "+", "@"))]


# A real browser

LISTEN = """
window.hacked = [];
for (const name of ["alert", "confirm", "prompt", "print", "open"])
  window[name] = (...given) => { window.hacked.push(name + ": " + given.join()); };
addEventListener("securitypolicyviolation", (event) =>
  window.hacked.push("stopped by the policy: " + event.violatedDirective));
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        yield browser
        browser.close()


def hacked(page: Page, base: str, addresses: list[str]) -> list[str]:
    """What ran, or would have run but for the policy, on the pages of some addresses."""
    found: list[str] = []
    for address in addresses:
        page.goto(base + address, wait_until="load")
        found += page.evaluate("window.hacked")
        if not page.url.startswith(base + "/"):
            found.append(f"led to {page.url}")
    return found


@contextlib.contextmanager
def open_page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.add_init_script(LISTEN)
    # Nothing of these pages comes from elsewhere; what asks for it would wait for a network that is not there.
    context.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
    yield context.new_page()
    context.close()


def browsed(words: list[str], client: TestClient, pictures: int) -> list[str]:
    return index_pages(client)[: 5 + pictures] + [
        "/?" + urlencode([("q", word), ("not", word), ("name", word)]) for word in words
    ]


def test_in_a_browser_no_script_of_an_attack_runs(
    browser: Browser,
    asking: TestClient,
    make_service: Callable[..., Service],
    hostile: MemoryDatabase,
    serve: Any,
) -> None:
    with serve(make_service(database=hostile)) as base, open_page(browser) as page:
        assert hacked(page, base, browsed(SCRIPTS[::40], asking, pictures=3)) == []


@pytest.mark.nightly
def test_in_a_browser_no_script_of_any_attack_runs(
    browser: Browser,
    asking: TestClient,
    make_service: Callable[..., Service],
    hostile: MemoryDatabase,
    serve: Any,
) -> None:
    with serve(make_service(database=hostile)) as base, open_page(browser) as page:
        assert hacked(page, base, browsed(SCRIPTS, asking, pictures=len(SCRIPTS))) == []


def test_in_a_browser_the_policy_stops_what_a_broken_page_lets_through(
    browser: Browser,
    make_service: Callable[..., Service],
    hostile: MemoryDatabase,
    serve: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two defences, one taken away after the other."""
    unescaped(monkeypatch)
    with serve(make_service(database=hostile)) as base, open_page(browser) as page:
        page.goto(base + "/?offset=0")
        # The browser tells of what it stopped in its own time, which may be after the page has loaded.
        page.wait_for_function("window.hacked.length > 0")
        assert all(one.startswith("stopped by the policy") for one in page.evaluate("window.hacked"))
    monkeypatch.setattr(headers, "HEADERS", {})
    with serve(make_service(database=hostile)) as base, open_page(browser) as page:
        assert [one for one in hacked(page, base, ["/?offset=0"]) if one.startswith("alert")]


# Files

_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "socket.connect", "socket.getaddrinfo"):
        _opened.append(f"{event} {arguments[0] if event != 'socket.connect' else arguments[1]}")


sys.addaudithook(_note)


@contextlib.contextmanager
def opened_files() -> Iterator[list[str]]:
    """The files that this process opens meanwhile, and the connections that it makes."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be taken away again
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


async def raw_get(app: ASGIApp, target: bytes) -> tuple[int, bytes]:
    """Status and body for exactly this target; clients tidy up what they send."""
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": "GET", "path": unquote(path.decode("latin-1")), "raw_path": path, "root_path": "",
        "query_string": query, "headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "scheme": "http",
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 5000), "state": {},
    }  # fmt: skip
    status, body, asked = 0, b"", False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    await app(scope, receive, send)
    return status, body


PLACES = [
    "/{}",
    "/static/{}",
    "/static/0/{}",
    "/static/{version}/{}",
    "/pictures/{}",
    "/uploads/{}",
    "/v1/items/{}",
    "/v1/items/{}/thumbnail",
    "/v1/items/{}/picture",
    "/v1/items/{}/similar",
    "/v1/items/{id}/thumbnail?v={}",
    "/?like={}&picture={}&name={}",
    "/results.csv?q=x&like={}",
    "/login?next={}",
    "/theme?theme=dark&next={}",
]
# Long enough that no thumbnail has one by chance.
OURS = (b"root:", b"[project]", b"import ", b"DIPTYCH_", b"{% block", b"{% macro", b"{% extends", b"PATH=")


@contextlib.asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[FastAPI]:
    async with app.router.lifespan_context(app):
        yield app


def leaks(app: FastAPI, id_: str, places: list[str], paths: list[str]) -> list[str]:
    """Files that were opened, and answers that should not have been given, for each string in each place."""
    version = page_static.StaticFiles().version
    targets = [
        place.replace("{version}", version).replace("{id}", id_).replace("{}", path).encode()
        for place in places
        for path in paths
    ]

    async def ask() -> list[str]:
        found = []
        async with started(app):
            for address in (
                b"/",
                b"/?q=x",
                b"/login",
                b"/pictures/" + id_.encode(),
                *(place.replace("{id}", id_).replace("{}", "nothing").encode() for place in PLACES),
            ):  # templates are read once, and the source of a function once, to say where a request went wrong
                await raw_get(app, address)
            with opened_files() as files:
                for target in targets:
                    status, body = await raw_get(app, target)
                    if status == 500 or any(secret in body for secret in OURS):
                        found.append(f"{target[:80]!r}: {status}")
            return found + files

    return list(dict.fromkeys(asyncio.run(ask())))


@pytest.mark.parametrize("first", range(0, len(PLACES), 3))
def test_no_path_and_no_parameter_leads_to_a_file(first: int, service: Service) -> None:
    id_ = service.index.first(1)[0].id
    assert leaks(create_app(service, service.settings), id_, PLACES[first : first + 3], PATHS) == []


def test_a_route_that_opens_what_it_is_asked_for_is_noticed(service: Service) -> None:
    async def careless(request: Request) -> Response:
        try:
            path = page_static.FOLDER / request.path_params["path"]
            if path.is_fifo():  # /proc/self/fd/3 may be one, and its reader would wait for ever
                return Response(status_code=404)
            with path.open("rb") as file:
                return Response(file.read(100))
        except (OSError, ValueError):
            return Response(status_code=404)

    app = create_app(service, service.settings)
    app.add_route("/files/{path:path}", careless)
    assert len(leaks(app, "0" * 32, ["/files/{}"], PATHS)) > 100


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embeddings", "/v1/classify"])
def test_without_the_option_no_address_is_asked(path: str, client: TestClient) -> None:
    def body(image: str) -> dict[str, Any]:
        return {
            "query": [{"image": image}],
            "input": [{"image": image}],
            "images": [image],
            "labels": ["a", "b"],
        }

    fields = {"/v1/search": ["query"], "/v1/embeddings": ["input"], "/v1/classify": ["images", "labels"]}[
        path
    ]

    def status(url: str) -> int:
        return client.post(path, json={name: body(url)[name] for name in fields}).status_code

    status("http://warm.example/")
    urls = attacks("ssrf.txt")
    with opened_files() as touched:
        found = {status(url.replace("PORT", "8001")) for url in urls}
    assert found <= {400, 403}
    assert touched == []


# Bodies


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    )


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value


FORM = "multipart/form-data; boundary=b"
FORMS: dict[str, tuple[str, bytes]] = {
    "no boundary": ("multipart/form-data", form(part(b"q", b"x"))),
    "an empty boundary": ("multipart/form-data; boundary=", form(part(b"q", b"x"))),
    "another boundary": ("multipart/form-data; boundary=other", form(part(b"q", b"x"))),
    "a long boundary": (
        "multipart/form-data; boundary=" + "b" * 10_000,
        form(part(b"q", b"x"), boundary=b"b" * 10_000),
    ),
    "nothing": (FORM, b""),
    "no end": (FORM, form(part(b"q", b"x"))[:-6]),
    "half a header": (FORM, b"--b\r\nContent-Dispo"),
    "no name": (FORM, form(b"Content-Disposition: form-data\r\n\r\nx")),
    "no disposition": (FORM, form(b"X: y\r\n\r\nx")),
    "10,000 fields": (FORM, form(*[part(b"q", b"x")] * 10_000)),
    "1,000 files": (FORM, form(*[part(b"file", png(size=(1, 1)), b'; filename="a"')] * 1000)),
    "a header of 1 MB": (FORM, form(b"X: " + b"y" * 1_000_000 + b"\r\n" + part(b"q", b"x"))),
    "10,000 headers": (FORM, form(b"X: y\r\n" * 10_000 + part(b"q", b"x"))),
    "a field of 2 MB": (FORM, form(part(b"q", b"x" * 2_000_000))),
    "a charset that is none": (FORM, form(part(b"_charset_", b"rot13"), part(b"q", b"\xff"))),
    "bytes that are no text": (FORM + "; charset=nonsense", form(part(b"q", b"\xff\xfe\0"))),
    "a path as file name": (FORM, form(part(b"file", b"x", b'; filename="../../etc/passwd"'))),
    "a line break in a file name": (FORM, form(part(b"file", b"x", b'; filename="a%0d%0aSet-Cookie: x=1"'))),
    "an extended file name": (FORM, form(part(b"file", b"x", b"; filename*=utf-16''%ff%fe"))),
    "a form in a form": (
        FORM,
        form(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + form(part(b"q", b"x"), boundary=b"c")),
    ),
    "a compressed body": ("application/json", b"\x1f\x8b\x08\x00" + bytes(100)),
    "100,000 pairs": ("application/x-www-form-urlencoded", b"q=x&" * 100_000),
}
DEEP = 100_000
JSONS: dict[str, bytes] = {
    "deep lists": b'{"query":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"query":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "a long number": b'{"query":"x","limit":' + b"9" * 100_000 + b"}",
    "a long fraction": b'{"query":"x","min_score":0.' + b"9" * 100_000 + b"}",
    "infinity": b'{"query":"x","min_score":1e999}',
    "no number": b'{"query":"x","min_score":NaN}',
    "a million lists": json.dumps({"query": [[]] * 1_000_000}).encode(),
    "50,000 keys": json.dumps({str(number): 1 for number in range(50_000)}).encode(),
    "a key twice": b'{"query":"x","query":["y"]}',
    "half a character": b'{"query":"\\ud800"}',
    "no utf-8": b'{"query":"\xff\xfe"}',
    "a NUL": b'{"query":"a\\u0000b"}',
    "a text of 1 MB": json.dumps({"query": "x" * 1_000_000}).encode(),
    "a deep filter": json.dumps({"query": "x", "filter": "(" * 3000 + "width > 1" + ")" * 3000}).encode(),
    "a filter that negates": json.dumps({"query": "x", "filter": "not " * 900 + "width > 1"}).encode(),
    "nothing": b"",
    "half": b'{"query":',
    "a bomb": json.dumps({"query": [{"image": data_uri(b"\x89PNG\r\n\x1a\n" + bytes(100))}]}).encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_bad_form_is_refused_and_the_next_request_answered(name: str, client: TestClient) -> None:
    kind, body = FORMS[name]
    answer = client.post("/", content=body, headers={"Content-Type": kind}, follow_redirects=False)
    assert answer.status_code < 500, answer.text[:500]
    assert "set-cookie" not in answer.headers
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("name", JSONS)
def test_a_bad_body_is_refused_and_the_next_request_answered(name: str, client: TestClient) -> None:
    for path in ("/v1/search", "/v1/embeddings", "/v1/classify"):
        answer = client.post(path, content=JSONS[name], headers={"Content-Type": "application/json"})
        assert answer.status_code < 500, answer.text[:500]
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    assert client.get("/healthz").status_code == 200


def test_many_ranges_of_a_thumbnail_are_not_added_up(client: TestClient) -> None:
    """Starlette's CVE-2025-62727."""
    thumbnail = client.get(client.get("/v1/items?limit=1").json()["items"][0]["thumbnail"])
    ranges = "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(0, 5000, 2))
    answer = client.get(str(thumbnail.url), headers={"Range": ranges})
    assert len(answer.content) <= len(thumbnail.content)


TOKEN = "a-token-of-more-than-thirty-two-characters"


@pytest.fixture
def decoding_apart(served_clip: ImageModel, tmp_path: Path) -> Iterator[TestClient]:
    """A client of an application put together as `diptych serve` does it, with a token that may write."""
    settings = Settings(tokens=Tokens([(Scope.WRITE, TOKEN)]), uploads=tmp_path / "uploads")
    index = Index(database_of([f"{HARMLESS} {number}" for number in range(3)], served_clip), freshness=0)
    with DecodingPool() as pool:
        service = build_service(index, served_clip, preprocessing(), "tiny", settings, decode=pool.decode)
        with client_of(create_app(service, settings)) as client:
            client.headers["authorization"] = f"Bearer {TOKEN}"
            yield client


def test_a_picture_that_cannot_be_decoded_costs_its_own_request(decoding_apart: TestClient) -> None:
    statuses = [
        decoding_apart.post("/v1/search", json={"query": [{"image": data_uri(data)}]}).status_code
        for data in (png(), b"\xff\xd8\xff\xe0", png()[:60], png())
    ]
    assert statuses == [200, 400, 400, 200]


def test_the_server_parses_no_picture_of_a_request_itself(
    decoding_apart: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed_here(*_: object, **__: object) -> None:
        raise AssertionError("a picture was parsed in this process")

    for name in (
        "diptych.data.images.decoding._parse",
        "diptych.data.images.decoding._decode_jpeg",
        "PIL.Image.open",
    ):
        monkeypatch.setattr(name, parsed_here)
    image = data_uri(png())
    added = decoding_apart.post("/v1/items", json={"items": [{"image": image, "caption": "x"}]})
    assert added.status_code == 201, added.text
    id_ = added.json()["items"][0]["id"]
    answers = [
        decoding_apart.get(f"/v1/items/{id_}/picture"),
        decoding_apart.get(f"/v1/items/{id_}/thumbnail"),
        decoding_apart.post("/v1/search", json={"query": [{"image": image}]}),
        decoding_apart.post("/v1/classify", json={"images": [image], "labels": ["a", "b"]}),
        decoding_apart.post("/v1/embeddings", json={"input": [{"image": image}]}),
        decoding_apart.post("/", files={"file": ("a.png", png(), "image/png")}),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers), [
        one.text[:200] for one in answers
    ]
