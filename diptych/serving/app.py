"""The ASGI application: its routes, errors and middleware."""

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
    """Build the API and the page over one service. The service starts and stops with the application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = _Api(
        title="Diptych",
        summary="Search an image collection by text and by image.",
        version=diptych.__version__,
        lifespan=lifespan,
        # These pages load scripts from other sites, which the content security policy forbids.
        docs_url=None,
        redoc_url=None,
        middleware=[
            # The outermost first: refused requests are logged and get the security headers too.
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
    """FastAPI with an OpenAPI document that describes authentication and the form of a problem."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs") | {"Problem": problem}
            for name in (
                "HTTPValidationError",
                "ValidationError",
            ):  # FastAPI's own forms, which this server does not send
                schemas.pop(name, None)
            document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"bearer": []}, {}]  # {}: a server on loopback may have no tokens
            self.openapi_schema = document
        return self.openapi_schema
