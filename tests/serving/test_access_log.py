"""A line for each request, and nothing of what was asked for in it."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from diptych.serving.guard.access_log import AccessLog

SECRET = "a-red-bicycle-of-my-daughter"


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{id}")
    def item(id: str) -> dict[str, str]:
        if id == "missing":
            raise HTTPException(404)
        return {"id": id}

    @app.post("/search")
    async def search(body: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(iter(["12345", "67890"]))

    @app.get("/fails")
    def fails() -> None:
        raise ValueError(SECRET)

    app.mount("/static", Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("x"))]))
    return app


def lines(ask: Callable[[TestClient], object], log: type[AccessLog] = AccessLog) -> list[dict[str, Any]]:
    """The lines that a few requests leave."""
    stream = io.StringIO()
    with TestClient(log(application(), stream), "http://localhost", raise_server_exceptions=False) as client:
        ask(client)
    assert stream.getvalue().endswith("\n")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ask_for_secrets(client: TestClient) -> None:
    headers = {
        "Referer": SECRET,
        "User-Agent": SECRET,
        "Cookie": SECRET,
        "Authorization": SECRET,
        "X-Request-ID": "a b" + SECRET,
    }
    for path in ("items", "static", "nowhere"):
        client.get(f"/{path}/{SECRET}", params={"q": SECRET, SECRET: "1"}, headers=headers)
    client.get("/fails", headers=headers)
    client.post("/search", json={"query": SECRET}, headers=headers)
    client.post("/search", content=SECRET, headers=headers)


def test_nothing_of_a_request_is_written_but_its_route() -> None:
    found = lines(ask_for_secrets)
    assert SECRET not in json.dumps(found)
    assert [(line["method"], line["route"], line["status"]) for line in found] == [
        ("GET", "/items/{id}", 200),
        ("GET", "/static/{path:path}", 200),
        ("GET", None, 404),
        ("GET", "/fails", 500),
        ("POST", "/search", 200),
        ("POST", "/search", 422),
    ]


def test_a_log_of_paths_is_noticed() -> None:
    class WritesPaths(AccessLog):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)
            self.stream.write(json.dumps({"path": scope["path"], "query": str(scope["query_string"])}) + "\n")

    assert SECRET in json.dumps(lines(ask_for_secrets, WritesPaths))


def test_bytes_and_seconds_and_time_are_those_of_the_request() -> None:
    body = json.dumps({"query": "x" * 100_000})
    (line,) = lines(
        lambda client: client.post("/search", content=body, headers={"Content-Type": "application/json"})
    )
    assert line["bytes_in"] == len(body)
    assert line["bytes_out"] == 10
    assert 0 < line["seconds"] < 60
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(line["time"])).total_seconds()) < 60
    assert set(line) == {"time", "method", "route", "status", "seconds", "bytes_in", "bytes_out", "request"}


def test_a_request_keeps_its_plain_id_and_gets_one_otherwise() -> None:
    answers: list[Any] = []
    ids = ["abc-123", "x" * 65, 'a"b', "", "a\tb"]
    found = lines(
        lambda client: answers.extend(client.get("/items/1", headers={"X-Request-ID": id_}) for id_ in ids)
    )
    assert [line["request"] for line in found] == [answer.headers["x-request-id"] for answer in answers]
    assert found[0]["request"] == "abc-123"
    others = [line["request"] for line in found[1:]]
    assert len(set(others)) == 4
    assert all(len(id_) == 32 and id_.isalnum() for id_ in others)


def test_a_client_that_left_before_an_answer_has_a_line_too() -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        raise ConnectionResetError

    stream = io.StringIO()
    with pytest.raises(ConnectionResetError):
        TestClient(AccessLog(leaves, stream)).get("/")
    assert json.loads(stream.getvalue())["status"] == 499


def test_static_files_are_named_by_their_folder_alone(tmp_path: Path) -> None:
    (tmp_path / SECRET).write_text("x")
    app = Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path))])
    stream = io.StringIO()
    assert TestClient(AccessLog(app, stream)).get(f"/static/{SECRET}").status_code == 200
    assert json.loads(stream.getvalue())["route"] == "/static/*"
    assert SECRET not in stream.getvalue()
