"""A service over some bundled pictures and a tiny model, in this process and behind a real socket."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest
from starlette.testclient import TestClient

from diptych.data.example import Example
from diptych.data.images.decoding import Pixels, read_rgb
from diptych.data.sources.opening import Source, open_source
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.serving.app import create_app
from diptych.serving.server import address_of, build_server, build_service, listening
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.tiny_model import preprocessing, random_clip

PICTURES = 60
MODEL = "tiny"

MakeService: TypeAlias = Callable[..., Service]
Serve: TypeAlias = Callable[[Service], contextlib.AbstractContextManager[str]]


class FirstOf:
    """The first pictures of a source."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._count = source, count
        self.name, self.fingerprint = source.name, source.fingerprint

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Example:
        return self._source[position]

    def describe(self) -> str:
        return self._source.describe()


async def decode_here(data: bytes) -> Pixels:
    """What the decoding pool does, without its processes."""
    return read_rgb(data)


@pytest.fixture(scope="session")
def served_clip() -> ImageModel:
    return random_clip()


@pytest.fixture(scope="session")
def filled(served_clip: ImageModel) -> MemoryDatabase:
    """The database of an index of the first `PICTURES` of `sample:test`. Not to be written to."""
    database = MemoryDatabase()
    refresh(
        database, FirstOf(open_source("sample:test"), PICTURES), Encoder(served_clip, preprocessing(), MODEL)
    )
    return database


@pytest.fixture(scope="session")
def make_service(served_clip: ImageModel, filled: MemoryDatabase) -> MakeService:
    """A service over the filled index, or over a database of one's own, with other settings."""

    def make(settings: Settings | None = None, database: MemoryDatabase = filled) -> Service:
        index = Index(database, freshness=0)
        return build_service(
            index, served_clip, preprocessing(), MODEL, settings or Settings(), decode=decode_here
        )

    return make


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Not started: the application starts it."""
    return make_service()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    """A client of the application in this process, under a name that the server answers to."""
    with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serves on a free port of 127.0.0.1 while the body runs; yields the base URL."""

    @contextlib.contextmanager
    def serving(service: Service) -> Iterator[str]:
        server = build_server(service, service.settings)
        listener = listening("127.0.0.1", 0)
        with listener:
            thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
            thread.start()
            try:
                while not server.started and thread.is_alive():
                    thread.join(0.01)
                assert server.started, "the server did not start"
                yield address_of(listener)
            finally:
                server.stop()
                thread.join(30)
        assert not thread.is_alive(), "the server did not stop"

    return serving


@pytest.fixture
def served(service: Service, serve: Serve) -> Iterator[str]:
    """The base URL of a real server."""
    with serve(service) as url:
        yield url
