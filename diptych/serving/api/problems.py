"""What went wrong, as application/problem+json (RFC 9457): the field, the value, what was expected, what to do.

400  well formed, but cannot be used: a damaged picture, a text that is too long, a filter with a mistake
404  no such picture, or route
403  the server was started without what the request needs, or the token is for reading
422  not of the documented form
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

_LONGEST_VALUE = 80  # characters of a value that are repeated
_WRITE_AGAIN = "5"  # seconds: another writer commits at least as often

# From the most special to the most general; everything else is a mistake of ours.
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
    """One field that is not as it should be."""

    field: str = Field(description="Where it stands, with dots between the levels.", examples=["body.limit"])
    value: str = Field(description="What was found there, shortened.", examples=["1000"])
    expected: str = Field(examples=["Input should be less than or equal to 200"])


class Problem(BaseModel):
    """Why a request was not answered as asked."""

    type: str = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["filter: unknown field 'widht'; did you mean 'width'?"])
    message: str = Field(
        default="",
        description="`detail` once more, where OpenAI's clients look for it.",
        examples=["filter: ..."],
    )
    errors: list[FieldProblem] = Field(default=[], description="The fields, where the form is wrong.")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route of the API can answer with: the given ones, and those that any may."""
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
    """A response."""
    title = http.HTTPStatus(status).phrase
    body = Problem(
        title=title, status=status, detail=detail, message=detail, errors=errors or []
    ).model_dump()
    if not body["errors"]:
        del body["errors"]
    return _Ascii(body, status, dict(headers or {}), media_type="application/problem+json")


class _Ascii(JSONResponse):
    """JSON in ASCII: what is no Unicode in somebody's input comes back as an escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def add_problems(app: FastAPI) -> None:
    """Answer errors with problems."""
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
        # Starlette names the methods of the first route of that path alone.
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(error.status_code, str(error.detail), headers=headers)


def _methods(request: Request) -> set[str]:
    """The methods that the path of a request has."""
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
    detail = (
        f"{first.field}: found {first.value}; {first.expected}; the form of each request is in /openapi.json"
    )
    return problem(422, detail, errors=errors)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # What it was stands in the server's log; it may hold what is nobody's business.
    return problem(500, "a mistake of the server's; the server's log has the details")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
