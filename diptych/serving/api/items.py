"""The images of the index: list, show, add and remove them; send their thumbnails and files."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, Field

from diptych.search.query import DEEPEST, Sort
from diptych.search.stores.image_rows import Item
from diptych.serving.api.image_inputs import WHOLE, CurrentService, RequestImage, Strict, read_image
from diptych.serving.api.problems import responses
from diptych.serving.service import NewImage, NotFoundError

ID = "0123456789abcdef0123456789abcdef"
_YEAR = 31_536_000  # seconds

router = APIRouter(prefix="/v1/items", tags=["items"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The image's id.", examples=[ID])]
Filter = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="Conditions on the fields of an image; docs/search.md describes the filter language.",
        examples=['width >= 1000 and caption contains "sea"'],
    ),
]
Limit = Annotated[
    int, Field(ge=1, le=200, description="The largest number of images in one answer.", examples=[10]), WHOLE
]
Offset = Annotated[
    int, Field(ge=0, lt=DEEPEST - 200, description="How many images to skip at the beginning."), WHOLE
]
SortBy = Annotated[
    Sort | None,
    Field(
        description="Order by the time when images were taken; those without a time come last.",
        examples=[None],
    ),
]
IfNoneMatch = Annotated[str | None, Header(description="The ETag of the client's copy.")]


class ItemOut(BaseModel):
    """One image of the index."""

    id: str = Field(examples=[ID])
    uri: str = Field(
        description="Where the image lies: a path, or SOURCE#KEY.", examples=["/pictures/heart.png"]
    )
    caption: str | None = Field(description="The first caption.", examples=["a red heart"])
    captions: list[str] = Field(description="Every caption.", examples=[["a red heart", "love"]])
    label: str | None = Field(examples=[None])
    tags: list[str] = Field(examples=[["love"]])
    metadata: dict[str, Any] = Field(examples=[{"author": "Ann"}])
    width: int | None = Field(description="Pixels, upright; null if unknown.", examples=[640])
    height: int | None = Field(examples=[480])
    bytes: int = Field(description="Size of its file.", examples=[48_213])
    modified: str | None = Field(
        description="Last change of its file, UTC.", examples=["2026-05-31T12:00:00+00:00"]
    )
    taken: str | None = Field(
        description="When it was taken, by the camera's clock, with the offset from UTC if the camera recorded one.",
        examples=["2024-06-01T14:30:05+02:00"],
    )
    camera: str | None = Field(description="Maker and model.", examples=["Apple iPhone 15"])
    latitude: float | None = Field(
        description="Degrees, WGS 84. Null also if the server does not send originals.", examples=[47.377]
    )
    longitude: float | None = Field(examples=[8.542])
    thumbnail: str | None = Field(
        description="The address of a small copy (JPEG). It changes when the image changes.",
        examples=[f"/v1/items/{ID}/thumbnail?v=0123"],
    )


class ItemPage(BaseModel):
    """Images in the order of their ids, or of `sort`."""

    items: list[ItemOut]
    total: int = Field(description="How many images match the filter, over all pages.", examples=[500])
    next: str | None = Field(description="`after` of the next page; null on the last one.", examples=[None])


class NewItem(Strict):
    """An image to add."""

    image: RequestImage
    caption: str | None = Field(default=None, max_length=4000, examples=["a red heart"])


class NewItems(Strict):
    """Images to add."""

    items: list[NewItem] = Field(min_length=1, max_length=64)


class AddedItems(BaseModel):
    """The added images, in the order of the request."""

    items: list[ItemOut]


def item_out(item: Item) -> ItemOut:
    """Convert an item of the index to its form in the API."""
    moment = None if item.mtime_ns is None else datetime.fromtimestamp(item.mtime_ns / 1e9, UTC)
    version = (item.thumbnail or "").partition("-")[2]
    return ItemOut(
        id=item.id,
        uri=_plain(item.uri),
        caption=_plain(item.caption),
        captions=_plain(list(item.captions)),
        label=_plain(item.label),
        tags=_plain(list(item.tags)),
        metadata=_plain(dict(item.metadata)),
        width=item.width or None,
        height=item.height or None,
        bytes=item.size,
        modified=None if moment is None else moment.isoformat(),
        taken=item.taken,
        camera=_plain(item.camera),
        latitude=item.latitude,
        longitude=item.longitude,
        thumbnail=f"/v1/items/{item.id}/thumbnail?v={version}" if version else None,
    )


@router.get("", summary="List images", responses=responses(400))
async def list_items(
    service: CurrentService,
    filter: Annotated[Filter | None, Query()] = None,
    limit: Annotated[Limit, Query()] = 50,
    after: Annotated[
        str | None, Query(pattern="^[0-9a-f]{32}$", description="`next` of the page before.")
    ] = None,
    sort: Annotated[SortBy, Query()] = None,
) -> ItemPage:
    found, total = await service.items(filter, count=limit + 1, after=after or "", sort=sort)
    page = found[:limit]
    return ItemPage(
        items=[item_out(item) for item in page],
        total=total,
        next=page[-1].id if len(found) > limit else None,
    )


@router.post("", status_code=201, summary="Add images", responses=responses(400, 413))
async def add_items(service: CurrentService, new: NewItems) -> AddedItems:
    """Needs the scope `write` and a server with a folder for uploads. The images are on disk when the answer comes, and
    searches find them within a second."""
    images = [
        NewImage(await read_image(one.image, service, f"items.{number}.image"), one.caption or None)
        for number, one in enumerate(new.items)
    ]
    return AddedItems(items=[item_out(item) for item in await service.add(images)])


@router.get("/{id}", summary="Show an image's entry", responses=responses(404))
async def get_item(service: CurrentService, id: Id) -> ItemOut:
    item = await service.item(id)
    if item is None:
        raise _absent(id)
    return item_out(item)


@router.delete("/{id}", status_code=204, summary="Remove an image", responses=responses(404))
async def delete_item(service: CurrentService, id: Id) -> Response:
    """Needs the scope `write`. The file of the image is deleted only if it was uploaded to this server."""
    if not await service.remove(id):
        raise _absent(id)
    return Response(status_code=204)


@router.get(
    "/{id}/thumbnail",
    summary="Send an image's thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 304: {"description": "Not Modified"}, **responses(404)},
)
async def get_thumbnail(
    service: CurrentService,
    id: Id,
    v: Annotated[
        str | None, Query(max_length=64, description="The version, as in the item's `thumbnail`.")
    ] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    thumbnail = await service.thumbnail(id)
    if thumbnail is None:
        raise NotFoundError(f"no image in the index with the id {id!r} has a thumbnail; check the id")
    # An address with a version always has the same bytes; one without may change, so clients ask again.
    lasting = f"private, max-age={_YEAR}, immutable" if v == thumbnail.version else "private, no-cache"
    return _bytes(thumbnail.data, "image/jpeg", thumbnail.version, if_none_match, lasting)


@router.get(
    "/{id}/picture",
    summary="Send an image's original file",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, 304: {"description": "Not Modified"}, **responses(404)},
)
async def get_picture(service: CurrentService, id: Id, if_none_match: IfNoneMatch = None) -> Response:
    """Status 404 if the file has changed since it was indexed, is missing, or lies inside another file."""
    original = await service.image(id)
    if original is None:
        raise NotFoundError(
            f"the file of the image {id!r} is missing, has changed since it was indexed, or lies inside another file; "
            "its thumbnail is at /v1/items/ID/thumbnail"
        )
    return _bytes(
        original.data, original.content_type, original.sha256[:32], if_none_match, "private, no-cache"
    )


def _absent(id_: str) -> NotFoundError:
    return NotFoundError(f"no image of the index has the id {id_!r}; check it")


def _bytes(data: bytes, media_type: str, version: str, if_none_match: str | None, caching: str) -> Response:
    etag = f'"{version}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    known = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type)


def _plain(value: Any) -> Any:
    """Replace what is not valid Unicode by question marks, in all texts of `value`: JSON cannot hold it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
