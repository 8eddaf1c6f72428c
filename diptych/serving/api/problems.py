"""Errors as application/problem+json (RFC 9457): the field, the value, what was expected, what to do.

400  a value cannot be used: a damaged image, a text that is too long, a filter with a mistake
403  the server was started without an option that the request needs, or the token only allows reading
404  no such image or route
422  the request does not have the documented form
429  a queue is full; Retry-After says when to ask again
503  the index cannot be read or written at the moment
"""

import http
import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path

from diptych.errors import DiptychError, ImageError, SearchIndexError, SettingsError, TextError
from diptych.serving.batching import OverloadedError
from diptych.serving.service import ForbiddenError, NotFoundError

_LONGEST_VALUE = 80  # characters of a value that a message repeats
_WRITE_AGAIN = "5"  # seconds: another writer commits at least as often

# From the most specific to the most general; any other error is a fault of the server.
_STATUS: dict[type[DiptychError], int] = {
    OverloadedError: 429,
    NotFoundError: 404,
    ForbiddenError: 403,
    SearchIndexError: 503,
    SettingsError: 400,
    TextError: 400,
    ImageError: 400,
}


class FieldProblem(BaseModel):
    """One field with a mistake."""

    field: str = Field(
        description="Its place in the request, with dots between the levels.", examples=["body.limit"]
    )
    value: str = Field(description="The value that was found, shortened.", examples=["1000"])
    expected: str = Field(examples=["Input should be less than or equal to 200"])


class Problem(BaseModel):
    """Why a request failed."""

    type: str = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["filter: unknown field 'widht'; did you mean 'width'?"])
    message: str = Field(
        default="",
        description="The same as `detail`, in the field where OpenAI's clients look.",
        examples=["filter: ..."],
    )
    errors: list[FieldProblem] = Field(default=[], description="The fields with mistakes, for status 422.")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route for OpenAPI: the given statuses, and those that any route may answer."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": content, "model": None}
        for status in sorted({*statuses, 401, 403, 421, 422, 429, 503})
    }


def problem(
    status: int,
    detail: str,
    *,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build the response for a problem."""
    title = http.HTTPStatus(status).phrase
    body = Problem(
        title=title, status=status, detail=detail, message=detail, errors=errors or []
    ).model_dump()
    if not body["errors"]:
        del body["errors"]
    return _Ascii(body, status, dict(headers or {}), media_type="application/problem+json")


class _Ascii(JSONResponse):
    """JSON in ASCII: input that is not valid Unicode comes back as an escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def add_problems(app: FastAPI) -> None:
    """Make the application answer errors with problems."""
    app.add_exception_handler(DiptychError, _diptych_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _not_of_the_form)
    app.add_exception_handler(Exception, _unexpected)


async def _diptych_error(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    elif status == 503:
        headers["Retry-After"] = _WRITE_AGAIN
    return problem(status, str(error), headers=headers)


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Starlette names only the methods of the first route with that path.
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(error.status_code, str(error.detail), headers=headers)


def _methods(request: Request) -> set[str]:
    """Return the methods that the path of a request allows."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(request.scope["path"]):
            found |= route.methods or set()
    return found


async def _not_of_the_form(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldProblem(
            field=".".join(part for part in map(str, one["loc"]) if not part.startswith("<")),
            value=_shown(one.get("input")),
            expected=one["msg"],
        )
        for one in error.errors()[:20]
    ]
    first = errors[0]
    detail = f"{first.field}: found {first.value}; {first.expected}; /openapi.json describes the form of each request"
    return problem(422, detail, errors=errors)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # The details are in the server's log only: they may be private.
    return problem(500, "internal error of the server; its log has the details")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
