"""The application: routes, errors, and the layers that every request passes."""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

import diptych
from diptych.serving.api import classify_routes, embeddings, health, items, search_routes
from diptych.serving.api.problems import Problem, add_problems
from diptych.serving.guard.access import Access
from diptych.serving.guard.access_log import AccessLog
from diptych.serving.guard.connections import BodyLimit
from diptych.serving.guard.headers import SameSite, SecurityHeaders, TrustedHosts, trusted_hosts
from diptych.serving.lifecycle import CancelWhenGone, RequestMetrics
from diptych.serving.page.login import SignIn
from diptych.serving.page.routes import add_page
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service


def create_app(service: Service, settings: Settings) -> FastAPI:
    """The API and the page over one service, which starts and stops with the application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = _Api(
        title="Diptych",
        summary="Search one's own pictures with words and pictures.",
        version=diptych.__version__,
        lifespan=lifespan,
        # They load their scripts from elsewhere, which the page's policy forbids.
        docs_url=None,
        redoc_url=None,
        middleware=[
            # The outermost first: every answer is logged and has its headers, also one that is refused on the way in.
            Middleware(AccessLog, stream=sys.stderr),
            Middleware(RequestMetrics, metrics=service.metrics),
            Middleware(SecurityHeaders),
            Middleware(TrustedHosts, hosts=trusted_hosts(settings.host, settings.names)),
            Middleware(SameSite),
            Middleware(SignIn),
            Middleware(Access, tokens=settings.tokens),
            Middleware(BodyLimit, one=settings.body_bytes, together=10 * settings.body_bytes),
            Middleware(CancelWhenGone),
        ],
    )
    app.state.service = service
    add_problems(app)
    for router in (
        search_routes.router,
        items.router,
        embeddings.router,
        classify_routes.router,
        health.router,
    ):
        app.include_router(router)
    add_page(app, service, settings)
    return app


class _Api(FastAPI):
    """FastAPI, whose OpenAPI document says what the routes share: how to prove who one is, what a problem looks
    like."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs") | {"Problem": problem}
            for name in (
                "HTTPValidationError",
                "ValidationError",
            ):  # FastAPI's own form, which is not used here
                schemas.pop(name, None)
            document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"bearer": []}, {}]  # {}: on loopback a server may have no tokens
            self.openapi_schema = document
        return self.openapi_schema
