"""A served index that gives sensible answers, and a real Chromium that complains about nothing."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from chromium import launch
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.testclient import TestClient

import diptych
from diptych.data.images.decoding import Pixels, read_rgb
from diptych.data.sources.opening import open_source
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.search.stores.image_rows import Item
from diptych.serving.app import create_app
from diptych.serving.server import build_service
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase

HOSTILE_CAPTION = '"><script>hacked = 1</script><img src=x onerror="hacked = 1">'
HOSTILE_NAME = "<svg onload=hacked=1>'.png"

Open: TypeAlias = Callable[..., Page]


@dataclass(frozen=True)
class Gallery:
    """The bundled pictures of `sample:test`, some files beside them, and the model that finds them."""

    database: MemoryDatabase
    model: Any
    preprocess: Any
    folder: Path

    def service(self, settings: Settings | None = None, database: MemoryDatabase | None = None) -> Service:
        """Not started: the application starts it."""
        index = Index(database or self.database, freshness=0)
        return build_service(
            index, self.model, self.preprocess, "diptych-mini", settings or Settings(), decode=decode_here
        )

    def item(self, caption: str) -> Item:
        return next(item for item in Index(self.database).items() if item.caption == caption)

    def bytes_of(self, caption: str) -> bytes:
        """The file of a picture of the sample."""
        source = open_source("sample:test")
        key = self.item(caption).uri.rpartition("#")[2]
        data = next(row.image for row in map(source.__getitem__, range(len(source))) if row.key == key)
        assert isinstance(data, bytes)
        return data


async def decode_here(data: bytes) -> Pixels:
    """What the decoding pool does, without its processes."""
    return read_rgb(data)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """500 drawings; and a folder with one of them five times, and with one that has hostile names."""
    folder = tmp_path_factory.mktemp("files")
    source = open_source("sample:test")
    rooster = next(row for row in map(source.__getitem__, range(100)) if "rooster" in row.captions)
    assert isinstance(rooster.image, bytes)
    for number in range(4):
        (folder / f"copy {number}.png").write_bytes(rooster.image + bytes(number))
    (folder / HOSTILE_NAME).write_bytes(rooster.image)
    (folder / HOSTILE_NAME).with_suffix(".txt").write_text(HOSTILE_CAPTION)
    model, preprocess = diptych.load("diptych-mini")
    encoder = Encoder(model, preprocess, "diptych-mini")
    database = MemoryDatabase()
    for rows in (source, open_source(str(folder))):
        refresh(database, rows, encoder)
    return Gallery(database, model, preprocess, folder)


@pytest.fixture
def html(gallery: Gallery) -> Iterator[TestClient]:
    """A client of the application in this process; it does not follow redirects."""
    service = gallery.service()
    app = create_app(service, service.settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False) as client:
        yield client


# Not for the session: while it is open an event loop runs in this thread, and no other test could run its own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@dataclass
class Complaints:
    """What the console of a browser said, and what was to be expected of it."""

    found: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # beginnings

    def expect(self, beginning: str) -> None:
        self.expected.append(beginning)

    def unexpected(self) -> list[str]:
        return [text for text in self.found if not text.startswith(tuple(self.expected))]


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Errors and warnings of the console, violations of the content security policy among them; in the end, none."""
    complaints = Complaints()
    yield complaints
    assert complaints.unexpected() == []


@pytest.fixture
def open_page(chromium: Browser, gallery: Gallery, serve: Any, complaints: Complaints) -> Iterator[Open]:
    """Opens an address of the served gallery: `open_page("/?q=clock", javascript=False, width=390)`."""
    with contextlib.ExitStack() as stack:
        base: dict[int, str] = {}

        def opened(
            path: str = "/",
            *,
            service: Service | None = None,
            javascript: bool = True,
            width: int = 1280,
            scheme: Any = "light",
            touch: bool = False,
        ) -> Page:
            key = id(service)
            if key not in base:
                base[key] = stack.enter_context(serve(service or gallery.service()))
            context = chromium.new_context(
                base_url=base[key],
                java_script_enabled=javascript,
                viewport={"width": width, "height": 860},
                color_scheme=scheme,
                has_touch=touch,
                reduced_motion="reduce",
            )
            stack.callback(context.close)
            context.set_default_timeout(15_000)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.found.append(f"error: {error}"))
            page.on(
                "console",
                lambda message: (
                    complaints.found.append(message.text) if message.type in ("error", "warning") else None
                ),
            )
            page.goto(path)
            return page

        yield opened
