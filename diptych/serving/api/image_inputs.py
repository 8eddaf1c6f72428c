"""Images in requests: data URIs, base64, or URLs if the server may fetch them."""

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diptych.errors import ImageError
from diptych.serving.guard.fetching import fetch
from diptych.serving.service import ForbiddenError, Service

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElF"
    "TkSuQmCC"
)


class Strict(BaseModel):
    """A part of a request. An unknown field is an error, and so is "5" or false for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON counts 10.0 as an integer, and false not. It must follow the bounds, which the schema would lose otherwise.
WHOLE = BeforeValidator(_whole)


def form_of(value: object) -> str | None:
    """Return the tag of the form that a value has, for a discriminated `Union`: errors then concern that form alone.

    Tags have angle brackets, so that problems can leave them out of a field's name."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    if isinstance(value, BaseModel):
        value = value.model_fields_set
    if isinstance(value, dict | set):
        return "<image>" if "image" in value else "<object>"
    return None


RequestImage = Annotated[
    str,
    Field(
        min_length=1,
        description="An image (JPEG, PNG, WebP or GIF) as a data URI or as base64. Also its URL (https://...), if the "
        "server was started with --allow-url-fetch.",
        examples=[PIXEL],
    ),
]


def service_of(request: Request) -> Service:
    """Return the service that answers a request."""
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(service_of)]


async def read_image(text: str, service: Service, field: str) -> bytes:
    """Return the bytes of an image file in a request. `field` is its place in the request, for messages.

    Raises:
        ImageError: it is not valid base64 or not a valid data URI, or cannot be fetched.
        ForbiddenError: it is a URL, and this server does not fetch URLs.
    """
    if text.startswith("data:"):
        header, comma, text = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise ImageError(f"{field}: begins with {header[:40]!r}; expected data:image/png;base64,...")
    elif "://" in text[:32]:
        if not service.settings.allow_url_fetch:
            raise ForbiddenError(
                f"{field}: found a URL, which this server does not fetch; send the image itself as a data URI, or "
                "start the server with --allow-url-fetch"
            )
        return await fetch(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{field}: not valid base64; expected data:image/png;base64,...") from None
