"""Health checks and metrics, for monitoring."""

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from diptych.serving.api.image_inputs import CurrentService
from diptych.serving.api.problems import problem, responses
from diptych.serving.prometheus import CONTENT_TYPE

router = APIRouter(tags=["health"])


class Status(BaseModel):
    """The state of the server: `ok` or `ready`."""

    status: str = Field(examples=["ok"])


@router.get("/healthz", summary="Whether the process answers", responses=responses())
async def healthz() -> Status:
    return Status(status="ok")


@router.get("/readyz", summary="Whether the server can answer queries", responses=responses())
async def readyz(service: CurrentService) -> Status:
    """Status 503 while the index cannot be read, and once the server is told to stop."""
    reason = await service.ready()
    return problem(503, reason, headers={"Retry-After": "1"}) if reason else Status(status="ready")  # type: ignore[return-value]


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **responses()},
)
async def metrics(service: CurrentService) -> Response:
    # In a thread, because it reads the index.
    return Response(await run_in_threadpool(service.metrics.page), media_type=CONTENT_TYPE)
