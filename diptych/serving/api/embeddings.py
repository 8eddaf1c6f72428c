"""Embeddings of texts and images in OpenAI's format; clients of that API need only another base URL."""

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Discriminator, Field, Tag

from diptych.embed.encode import Vectors
from diptych.errors import SettingsError
from diptych.serving.api.image_inputs import (
    PIXEL,
    WHOLE,
    CurrentService,
    RequestImage,
    Strict,
    form_of,
    read_image,
)
from diptych.serving.api.problems import responses
from diptych.serving.service import Service

router = APIRouter(prefix="/v1", tags=["embeddings"])

_MOST = 64
Text = Annotated[str, Field(min_length=1, examples=["a red heart"])]


class TextInput(Strict):
    """A text among other inputs."""

    text: Text


class PictureInput(Strict):
    """An image among other inputs."""

    image: RequestImage


Input = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[TextInput, Tag("<object>")]
    | Annotated[PictureInput, Tag("<image>")],
    Discriminator(
        form_of,
        "form",
        'Input should be a text, {"text": ...} or {"image": ...}; token ids are not supported',
    ),
]


class EmbeddingsIn(Strict):
    """The texts and images to embed."""

    input: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[list[Input], Field(min_length=1, max_length=_MOST), Tag("<list>")],
        Discriminator(form_of, "form", "Input should be a text, or a list of texts and images"),
    ] = Field(
        description="A text, or a list of texts and images in any order.",
        examples=["a red heart", ["a red heart", {"image": PIXEL}]],
    )
    model: str | None = Field(
        default=None,
        description="The name of the server's one model, as /v1/models gives it.",
        examples=[None],
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64: little-endian float32, about a third of the size."
    )
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None,
        description="Only the model's own dimension is accepted: a shortened vector would find other images.",
    )
    modality: Literal["text", "image"] = Field(
        default="text", description="What plain strings are. `image`: data URIs, base64 or URLs."
    )
    truncate: bool = Field(default=False, description="Cut a text that is too long instead of refusing it.")
    user: str | None = Field(default=None, description="Ignored.")


class Embedding(BaseModel):
    """One vector of unit length."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="The index of the input.", examples=[0])
    embedding: list[float] | str = Field(examples=[[0.6, 0.8]])


class Usage(BaseModel):
    """Always 0: tokens are not counted. OpenAI's format requires the fields."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsOut(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(examples=["diptych-mini"])
    usage: Usage = Usage()


class ModelOut(BaseModel):
    """The model of the index."""

    id: str = Field(examples=["diptych-mini"])
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Unknown; always 0.")
    owned_by: str = "diptych"
    dimensions: int = Field(examples=[256])
    fingerprint: str = Field(
        description="Differs between models whose vectors differ.", examples=["5f4dcc3b5aa765d6"]
    )


class ModelsOut(BaseModel):
    """The models of the server: always one."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


@router.get("/models", summary="Show the model", responses=responses())
async def models(service: CurrentService) -> ModelsOut:
    towers = service.towers
    return ModelsOut(data=[ModelOut(id=towers.name, dimensions=towers.dim, fingerprint=towers.fingerprint)])


@router.post("/embeddings", summary="Embed texts and images", responses=responses(400, 413))
async def embeddings(service: CurrentService, wanted: EmbeddingsIn) -> EmbeddingsOut:
    """The vectors have unit length. They are the ones that search uses."""
    towers = service.towers
    if wanted.model not in (None, towers.name):
        raise SettingsError(
            f"model: {wanted.model!r} is not served here; expected {towers.name!r}: send it, or leave the field out"
        )
    if wanted.dimensions not in (None, towers.dim):
        raise SettingsError(
            f"dimensions: found {wanted.dimensions}; expected {towers.dim}, the model's own; leave the field out"
        )
    vectors = await _embed(wanted, service)
    return EmbeddingsOut(
        data=[
            Embedding(index=number, embedding=_encode(vector, wanted.encoding_format))
            for number, vector in enumerate(vectors)
        ],
        model=towers.name,
    )


async def _embed(wanted: EmbeddingsIn, service: Service) -> list[Vectors]:
    inputs = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    texts: dict[int, str] = {}
    images: dict[int, bytes] = {}
    for number, one in enumerate(inputs):
        if isinstance(one, TextInput):
            texts[number] = one.text
        elif isinstance(one, str) and wanted.modality == "text":
            texts[number] = one
        else:
            image = one.image if isinstance(one, PictureInput) else one
            images[number] = await read_image(image, service, f"input.{number}")
    found: dict[int, Vectors] = {}
    if texts:
        rows = await service.texts(list(texts.values()), truncate=wanted.truncate)
        found |= dict(zip(texts, rows, strict=True))
    if images:
        found |= dict(zip(images, await service.images(list(images.values())), strict=True))
    return [found[number] for number in range(len(inputs))]


def _encode(vector: Vectors, encoding: str) -> Any:
    return (
        vector.tolist() if encoding == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()
    )
