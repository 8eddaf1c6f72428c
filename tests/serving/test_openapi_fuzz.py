"""schemathesis against a real server: what the OpenAPI document promises is what is answered, whatever is sent.

All of its phases and checks are on: examples, every boundary of the schema, random valid and invalid input, sequences
of operations. 400 is an answer that valid input may get: no schema can say that a picture is decodable, a filter well
formed, or a text short in tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis import engine
from schemathesis.engine import events

from diptych.data.sources.opening import open_source
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.serving import server
from diptych.serving.app import create_app
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.serving.pictures_for_requests import png
from tests.tiny_model import preprocessing

WRITE = "w" * 40


@pytest.fixture
def writable(
    tmp_path_factory: pytest.TempPathFactory, served_clip: ImageModel, make_service: Callable[..., Service]
) -> Service:
    """A service over four pictures that may be changed, with a token for it."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "pictures").mkdir()
    for number in range(4):
        (folder / "pictures" / f"{number}.png").write_bytes(png((50 * number, 9, 9)))
    database = MemoryDatabase()
    refresh(database, open_source(folder / "pictures"), Encoder(served_clip, preprocessing(), "tiny"))
    settings = Settings(tokens=Tokens([(Scope.WRITE, WRITE)]), uploads=folder / "uploads")
    return make_service(settings, database)


def findings(url: str, examples: int) -> Iterator[str]:
    """A line for each check that fails, and for each error of schemathesis itself."""
    headers = {"Authorization": f"Bearer {WRITE}"}
    config = {
        "seed": 20261121,
        "headers": headers,
        "generation": {"max-examples": examples, "database": "none"},
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404"]}},
    }
    schema = schemathesis.openapi.from_url(
        f"{url}/openapi.json", headers=headers, config=schemathesis.Config.from_dict(config)
    )
    operations = set()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            yield f"{type(event).__name__}: {getattr(event, 'value', None) or getattr(event, 'exception', None)!r}"
        if isinstance(event, events.ScenarioFinished):
            for key, checks in event.recorder.checks.items():
                case = event.recorder.cases[key].value
                operations.add(case.operation.label)
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        yield f"{case.operation.label}: {failure}: {case.body!r:.200} {case.query!r:.200}"
    assert len(operations) >= len(list(schema.get_all_operations())), "an operation was not tried"


def test_every_operation_keeps_its_promises(
    writable: Service, serve: Callable[[Service], AbstractContextManager[str]]
) -> None:
    with serve(writable) as url:
        assert list(findings(url, examples=4)) == []


@pytest.mark.nightly
def test_every_operation_keeps_its_promises_under_300_examples(
    writable: Service, serve: Callable[[Service], AbstractContextManager[str]]
) -> None:
    with serve(writable) as url:
        assert list(findings(url, examples=300)) == []


def test_an_operation_that_breaks_its_promise_is_found(
    writable: Service,
    serve: Callable[[Service], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_a_broken_route(service: Service, settings: Settings) -> FastAPI:
        app = create_app(service, settings)

        @app.get("/broken")
        def broken(number: int) -> int:
            return 1 // (number - 1)

        return app

    monkeypatch.setattr(server, "create_app", with_a_broken_route)
    with serve(writable) as url:
        assert any(line.startswith("GET /broken: ") for line in findings(url, examples=1))
