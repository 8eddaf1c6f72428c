"""Questions to the index."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Discriminator, Field, Tag

from diptych.errors import SettingsError
from diptych.search.query import LARGEST_WEIGHT, MOST_PARTS, Answer, QueryPart, Question
from diptych.serving.api.image_inputs import Picture, Served, Strict, form_of, read_picture
from diptych.serving.api.items import Filter, Id, ItemOut, Limit, Offset, SortBy, item_out
from diptych.serving.api.problems import responses
from diptych.serving.service import Service

router = APIRouter(tags=["search"])

Words = Annotated[str, Field(min_length=1, max_length=4000, examples=["a red heart"])]


class PartIn(Strict):
    """What a picture shall be like: exactly one of a text, a picture, and a picture of the index by its id."""

    text: Words | None = None
    image: Picture | None = None
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    weight: float = Field(
        default=1.0,
        ge=-LARGEST_WEIGHT,
        le=LARGEST_WEIGHT,
        allow_inf_nan=False,
        description="How much it counts among the parts; negative, such as -0.2: what it shall not be like.",
    )


class SearchIn(Strict):
    """A question to the index."""

    query: Annotated[
        Annotated[Words, Tag("<text>")]
        | Annotated[list[PartIn], Field(min_length=1, max_length=MOST_PARTS), Tag("<list>")],
        Discriminator(form_of, "form", "Input should be words, or a list of parts"),
    ] = Field(
        description="Words, or several parts with weights.",
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
        description="Leave out pictures with a smaller cosine.",
    )
    unique: bool = Field(
        default=False, description="Group near duplicates; the best of each group stands for it."
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: by score alone. 1: as unlike as possible.",
    )
    exact: bool = Field(
        default=False, description="Compare with every picture, also where an index would do."
    )
    sort: SortBy = None


class FoundOut(ItemOut):
    """A picture that was found."""

    score: float = Field(description="Its cosine with the question, -1..1.", examples=[0.31])
    duplicates: list[ItemOut] = Field(default=[], description="What `unique` has grouped with it.")


class Seconds(BaseModel):
    """What the answer took."""

    embedding: float = Field(examples=[0.012])
    searching: float = Field(examples=[0.004])


class SearchOut(BaseModel):
    """The pictures found, the best first."""

    results: list[FoundOut]
    next_offset: int | None = Field(description="`offset` of the next page; null on the last.", examples=[10])
    seconds: Seconds


@router.post("/v1/search", summary="Find pictures", responses=responses(400, 404, 413))
async def search(service: Served, question: SearchIn) -> SearchOut:
    """By words, by pictures, by pictures of the index, by all of them together, with weights; negative ones too.

    A picture of the index that the question names by its id is not among the results.
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
    "/v1/items/{id}/similar", summary="Pictures like one", responses=responses(400, 404), tags=["items"]
)
async def similar(
    service: Served,
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
    image = None if part.image is None else await read_picture(part.image, service, f"{where}.image")
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
