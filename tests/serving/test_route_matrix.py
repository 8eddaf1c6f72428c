"""Who may do what: every route of the router, every method, every kind of token. A route without a rule fails."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from diptych.serving.app import create_app
from diptych.serving.guard import access
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service

READ, WRITE = "r" * 40, "w" * 40
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# The rule of each route and each of its methods: the scope, or None where everybody may ask.
RULES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("GET", "/theme"): None,
    ("GET", "/static/{version}/{name}"): None,
    ("GET", "/"): Scope.READ,
    ("POST", "/"): Scope.READ,
    ("GET", "/pictures/{id}"): Scope.READ,
    ("GET", "/uploads/{token}"): Scope.READ,
    ("GET", "/results.json"): Scope.READ,
    ("GET", "/results.csv"): Scope.READ,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/openapi.json"): Scope.READ,
    ("GET", "/v1/models"): Scope.READ,
    ("POST", "/v1/embeddings"): Scope.READ,
    ("POST", "/v1/search"): Scope.READ,
    ("POST", "/v1/classify"): Scope.READ,
    ("POST", "/v1/huggingface/zero-shot-image-classification"): Scope.READ,
    ("GET", "/v1/items"): Scope.READ,
    ("POST", "/v1/items"): Scope.WRITE,
    ("GET", "/v1/items/{id}"): Scope.READ,
    ("DELETE", "/v1/items/{id}"): Scope.WRITE,
    ("GET", "/v1/items/{id}/similar"): Scope.READ,
    ("GET", "/v1/items/{id}/thumbnail"): Scope.READ,
    ("GET", "/v1/items/{id}/picture"): Scope.READ,
}
HELD: dict[str, Scope | None] = {
    "": None,
    f"Bearer {READ[:-1]}": None,
    f"Bearer {READ}x": None,
    "Bearer": None,
    f"Basic {READ}": None,
    READ: None,
    f"Bearer {READ}": Scope.READ,
    f"Basic {base64.b64encode(f'anyone:{READ}'.encode()).decode()}": Scope.READ,
    f"Bearer {WRITE}": Scope.WRITE,
}


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route, with those of included routers."""
    for route in iter_route_contexts(app.routes):
        # A mounted application, or whatever else has no methods of its own, needs a rule for every one.
        methods = route.methods or METHODS
        # What Starlette adds to GET is judged as GET.
        yield from (
            (method, route.path or "?") for method in methods if not (method == "HEAD" and "GET" in methods)
        )


def expected(needed: Scope | None, held: Scope | None) -> set[int]:
    """The statuses of refusal that a request has to get; empty where it has to be let through."""
    if needed is None or (held is not None and held >= needed):
        return set()
    return {401} if held is None else {403}


def wrong_answers(app: FastAPI) -> list[str]:
    """A line for each route, method and token that is let through or refused against the rules."""
    found = []
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        for (method, path), needed in RULES.items():
            address = path.format(id="0" * 32, version="0", name="page.css", token="0")
            for header, held in HELD.items():
                headers = {"authorization": header} if header else {}
                status = client.request(method, address, headers=headers).status_code
                refused = {status} & {401, 403}
                if refused != expected(needed, held):
                    found.append(f"{method} {path} with {header[:12]!r}: {status}")
    return found


@pytest.fixture
def app(make_service: Callable[..., Service], tmp_path: Path) -> FastAPI:
    settings = Settings(tokens=Tokens([(Scope.READ, READ), (Scope.WRITE, WRITE)]), uploads=tmp_path)
    return create_app(make_service(settings), settings)


def test_every_route_has_a_rule(app: FastAPI) -> None:
    assert sorted(set(routes_of(app)) ^ RULES.keys()) == []


def test_every_route_answers_only_who_may_ask(app: FastAPI) -> None:
    assert wrong_answers(app) == []


def test_what_is_no_route_and_no_method_needs_a_token_too(app: FastAPI) -> None:
    paths = {path.format(id="0" * 32, version="0", name="x", token="0") for _, path in RULES} | {
        "/nothing",
        "//",
    }
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        for path in paths:
            for method in METHODS:
                if access.scope_needed(method, path) is not None:
                    assert client.request(method, path).status_code == 401, f"{method} {path}"


def test_without_tokens_everybody_reads_and_nobody_writes(make_service: Callable[..., Service]) -> None:
    service = make_service()
    with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1") as client:
        for (method, path), needed in RULES.items():
            address = path.format(id="0" * 32, version="0", name="page.css", token="0")
            status = client.request(method, address, follow_redirects=False).status_code
            assert (status == 403) == (needed is Scope.WRITE and "picture" not in path), (
                f"{method} {path}: {status}"
            )


def test_a_new_route_without_a_rule_is_found(app: FastAPI) -> None:
    app.get("/v1/everything")(lambda: "everything")
    assert set(routes_of(app)) - RULES.keys() == {("GET", "/v1/everything")}


def test_a_route_that_was_left_open_is_found(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PUBLIC", access.PUBLIC | {"/v1/items"})
    assert all(line.startswith("GET /v1/items with") for line in wrong_answers(app))
    assert wrong_answers(app)


def test_a_reader_that_may_write_is_found(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "READ_BY_POST", access.READ_BY_POST | {"/v1/items"})
    assert any(line.startswith("POST /v1/items with 'Bearer rrrrr'") for line in wrong_answers(app))


def test_two_tokens_in_one_request_are_none(app: FastAPI) -> None:
    headers = [("authorization", f"Bearer {READ}"), ("authorization", f"Bearer {WRITE}")]
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/v1/models", headers=headers).status_code == 401
