"""Pictures inside requests: data URIs, base64, or addresses where the server may fetch."""

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
    """A part of a request: an unknown field is an error, not passed over, and so are "5" or false for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# 10.0 is an integer to JSON, and false is none. After the bounds, which the schema would lose otherwise.
WHOLE = BeforeValidator(_whole)


def form_of(value: object) -> str | None:
    """Which of a field's forms a value has: the tag of a `Union` that is told apart by it, so that an error is about
    the form that was meant. Tags stand in angle brackets, which problems leave out of a field's name."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, list):
        return "<list>"
    if isinstance(value, BaseModel):
        value = value.model_fields_set
    if isinstance(value, dict | set):
        return "<image>" if "image" in value else "<object>"
    return None


Picture = Annotated[
    str,
    Field(
        min_length=1,
        description="A picture (JPEG, PNG, WebP or GIF) as a data URI or as bare base64. Its address "
        "(https://...), where the server was started with --allow-url-fetch.",
        examples=[PIXEL],
    ),
]


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


async def read_picture(text: str, service: Service, field: str) -> bytes:
    """The bytes of an encoded picture; `field` is where it stands in the request.

    Raises:
        ImageError: it is not well formed, or cannot be fetched.
        ForbiddenError: it is an address, and this server fetches none.
    """
    if text.startswith("data:"):
        header, comma, text = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise ImageError(f"{field}: begins with {header[:40]!r}; expected data:image/png;base64,...")
    elif "://" in text[:32]:
        if not service.settings.allow_url_fetch:
            raise ForbiddenError(
                f"{field}: an address; this server fetches none: send the picture itself as a data URI, or start the "
                "server with --allow-url-fetch"
            )
        return await fetch(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{field}: not valid base64; expected data:image/png;base64,...") from None
