"""For whoever watches the server."""

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from diptych.serving.api.image_inputs import Served
from diptych.serving.api.problems import problem, responses
from diptych.serving.prometheus import CONTENT_TYPE

router = APIRouter(tags=["health"])


class Status(BaseModel):
    """All is well."""

    status: str = Field(examples=["ok"])


@router.get("/healthz", summary="Whether the process answers", responses=responses())
async def healthz() -> Status:
    return Status(status="ok")


@router.get("/readyz", summary="Whether questions can be answered", responses=responses())
async def readyz(service: Served) -> Status:
    """503 while the index cannot be read, and from the moment that the server has been told to stop."""
    reason = await service.ready()
    return problem(503, reason, headers={"Retry-After": "1"}) if reason else Status(status="ready")  # type: ignore[return-value]


@router.get(
    "/metrics",
    summary="Measurements for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **responses()},
)
async def metrics(service: Served) -> Response:
    # In a thread: it asks the index how many rows it has.
    return Response(await run_in_threadpool(service.metrics.page), media_type=CONTENT_TYPE)
