"""/metrics, /healthz and /readyz: what is measured, and what is never written there."""

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from diptych.errors import SearchIndexError
from diptych.serving.app import create_app
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.page.login import COOKIE
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.serving.pictures_for_requests import data_uri, png


def measured(client: TestClient) -> dict[str, float]:
    """Value by name and labels: `name{a=b,c=d}`."""
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def test_requests_batches_and_the_index_are_measured(client: TestClient) -> None:
    client.post("/v1/search", json={"query": "a red heart"})
    client.post("/v1/embeddings", json={"input": [{"image": data_uri(png())}]})
    client.get("/v1/items?limit=0")
    found = measured(client)
    assert found["diptych_request_seconds_count{method=POST,route=/v1/search,status=200}"] == 1
    assert found["diptych_request_seconds_count{method=GET,route=/v1/items,status=422}"] == 1
    assert found["diptych_batch_size_count{modality=image}"] == 1
    assert found["diptych_encode_seconds_count{modality=text}"] == 2  # one warmed up
    assert found["diptych_index_seconds_count{operation=search}"] == 2
    assert found["diptych_queue_depth{queue=texts}"] == 0
    assert found["diptych_index_up{}"] == 1
    assert found["diptych_index_rows{}"] == 60
    assert {"diptych_index_unindexed_rows{}", "diptych_index_fragments{}"} <= found.keys()


def test_nothing_that_a_client_makes_up_becomes_a_label(client: TestClient) -> None:
    client.get("/secret-path")
    client.request("BREW", "/v1/items")
    client.get("/v1/items", params={"filter": "secret-filter"})
    client.post("/v1/search", json={"query": "secret-query"})
    page = client.get("/metrics").text
    assert "secret" not in page
    assert "BREW" not in page
    assert 'route="none"' in page


def test_health_needs_no_index_and_readiness_does(
    make_service: Callable[..., Service], filled: MemoryDatabase
) -> None:
    service = make_service()
    with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1") as client:
        assert client.get("/readyz").json() == {"status": "ready"}

        def broken() -> bytes:
            raise SearchIndexError("index: cannot be read; check the disk")

        service.index.database.read_manifest = broken  # type: ignore[method-assign]
        try:
            assert client.get("/healthz").status_code == 200
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "index: cannot be read; check the disk",
            )
            assert client.post("/v1/search", json={"query": "a"}).status_code == 503
            assert measured(client)["diptych_index_up{}"] == 0
        finally:
            del service.index.database.read_manifest


def test_a_mistake_of_the_servers_is_a_problem_without_its_details(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    app = create_app(service, service.settings)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        monkeypatch.setattr(service.index, "get", lambda ids: 1 / 0)
        answer = client.get(f"/v1/items/{'0' * 32}")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "division" not in answer.text


def test_requests_of_a_signed_in_browser_are_measured_by_their_route(
    make_service: Callable[..., Service],
) -> None:
    token = "r" * 40
    service = make_service(Settings(tokens=Tokens([(Scope.READ, token)])))
    cookies = {COOKIE: token}
    with TestClient(
        create_app(service, service.settings), base_url="http://127.0.0.1", cookies=cookies
    ) as client:
        assert client.get("/v1/models").status_code == 200
        assert measured(client)["diptych_request_seconds_count{method=GET,route=/v1/models,status=200}"] == 1
