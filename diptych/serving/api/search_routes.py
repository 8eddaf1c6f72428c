"""Search the index by texts, images and ids."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Discriminator, Field, Tag

from diptych.errors import SettingsError
from diptych.search.query import LARGEST_WEIGHT, MOST_PARTS, Answer, QueryPart, Question
from diptych.serving.api.image_inputs import CurrentService, RequestImage, Strict, form_of, read_image
from diptych.serving.api.items import Filter, Id, ItemOut, Limit, Offset, SortBy, item_out
from diptych.serving.api.problems import responses
from diptych.serving.service import Service

router = APIRouter(tags=["search"])

Words = Annotated[str, Field(min_length=1, max_length=4000, examples=["a red heart"])]


class PartIn(Strict):
    """One part of a query: exactly one of a text, an image, and the id of an image in the index."""

    text: Words | None = None
    image: RequestImage | None = None
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    weight: float = Field(
        default=1.0,
        ge=-LARGEST_WEIGHT,
        le=LARGEST_WEIGHT,
        allow_inf_nan=False,
        description="The weight of this part. Negative, such as -0.2: results should not be like it.",
    )


class SearchIn(Strict):
    """A query to the index."""

    query: Annotated[
        Annotated[Words, Tag("<text>")]
        | Annotated[list[PartIn], Field(min_length=1, max_length=MOST_PARTS), Tag("<list>")],
        Discriminator(form_of, "form", "Input should be a text, or a list of parts"),
    ] = Field(
        description="A text, or several parts with weights.",
        examples=["a red heart", [{"text": "a red heart"}, {"text": "a face", "weight": -0.2}]],
    )
    filter: Filter | None = None
    limit: Limit = 10
    offset: Offset = 0
    min_score: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Leave out images with a smaller cosine similarity.",
    )
    unique: bool = Field(
        default=False, description="Group near duplicates; the best image of each group represents it."
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 returns the best matches; 1 returns the most varied ones.",
    )
    exact: bool = Field(
        default=False, description="Compare with every image, instead of using the approximate index."
    )
    sort: SortBy = None


class FoundOut(ItemOut):
    """An image that was found."""

    score: float = Field(description="Cosine similarity with the query, -1..1.", examples=[0.31])
    duplicates: list[ItemOut] = Field(
        default=[], description="Near duplicates that `unique` grouped with it."
    )


class Seconds(BaseModel):
    """Seconds that the search took."""

    embedding: float = Field(examples=[0.012])
    searching: float = Field(examples=[0.004])


class SearchOut(BaseModel):
    """The images found, best first."""

    results: list[FoundOut]
    next_offset: int | None = Field(
        description="`offset` of the next page; null on the last one.", examples=[10]
    )
    seconds: Seconds


@router.post("/v1/search", summary="Search for images", responses=responses(400, 404, 413))
async def search(service: CurrentService, question: SearchIn) -> SearchOut:
    """Search by texts, images, ids of images in the index, or all together, with weights that may be negative.

    An image that the query names by its id is not among the results.
    """
    parts = [PartIn(text=question.query)] if isinstance(question.query, str) else question.query
    return _shown(
        await service.search(
            Question(
                parts=tuple([await _part(part, service, number) for number, part in enumerate(parts)]),
                filter=question.filter,
                min_score=question.min_score,
                count=question.limit,
                offset=question.offset,
                group_duplicates=question.unique,
                diversity=question.diversity,
                exact=question.exact,
                sort=question.sort,
            )
        ),
        question.offset + question.limit,
    )


@router.get(
    "/v1/items/{id}/similar", summary="Find similar images", responses=responses(400, 404), tags=["items"]
)
async def similar(
    service: CurrentService,
    id: Id,
    *,
    filter: Annotated[Filter | None, Query()] = None,
    limit: Annotated[Limit, Query()] = 10,
    offset: Annotated[Offset, Query()] = 0,
    unique: bool = False,
) -> SearchOut:
    answer = await service.search(
        Question((QueryPart(id=id),), filter=filter, count=limit, offset=offset, group_duplicates=unique)
    )
    return _shown(answer, offset + limit)


async def _part(part: PartIn, service: Service, number: int) -> QueryPart:
    where = f"query.{number}"
    image = None if part.image is None else await read_image(part.image, service, f"{where}.image")
    try:
        return QueryPart(text=part.text, image=image, id=part.id, weight=part.weight)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def _shown(answer: Answer, next_offset: int) -> SearchOut:
    return SearchOut(
        results=[
            FoundOut(
                **item_out(found.item).model_dump(),
                score=found.score,
                duplicates=[item_out(item) for item in found.duplicates],
            )
            for found in answer.found
        ],
        next_offset=next_offset if answer.more else None,
        seconds=Seconds(embedding=answer.seconds_embedding, searching=answer.seconds_searching),
    )
