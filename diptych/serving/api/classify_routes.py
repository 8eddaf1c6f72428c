"""Classification: among the labels of a request, or among the classes that the model was fine-tuned on."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from diptych.errors import SettingsError
from diptych.serving.api.image_inputs import PIXEL, WHOLE, CurrentService, RequestImage, Strict, read_image
from diptych.serving.api.problems import responses

router = APIRouter(prefix="/v1", tags=["classification"])

Label = Annotated[str, Field(min_length=1, max_length=300)]
Labels = Annotated[list[Label], Field(min_length=2, max_length=256, json_schema_extra={"uniqueItems": True})]
Template = Annotated[str, Field(min_length=2, max_length=300, pattern=r"\{\}")]


class ClassifyIn(Strict):
    """Images, and the labels to choose from."""

    images: list[RequestImage] = Field(min_length=1, max_length=64)
    labels: Labels | None = Field(
        default=None,
        description="The labels to choose from. Without labels: the classes that the model was fine-tuned on. "
        "`templates` and `threshold` need labels.",
        examples=[["heart", "star"]],
    )
    templates: list[Template] = Field(
        default=["{}"],
        min_length=1,
        max_length=64,
        description="Prompt templates; {} stands for the label. The vectors of several templates are averaged. Labels "
        "times templates: at most 256.",
        examples=[["a drawing of a {}."]],
    )
    top: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="How many labels to return; all by default."
    )
    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="`none_of_these` is true if the best label is less similar than this.",
    )


class PredictionOut(BaseModel):
    """One label of one image."""

    label: str = Field(examples=["heart"])
    probability: float = Field(
        description="Over all labels; of each label alone if the classes can hold together.", examples=[0.93]
    )
    similarity: float = Field(
        description="Cosine similarity, -1..1; comparable between images.", examples=[0.28]
    )


class ClassifiedOut(BaseModel):
    """The labels of one image, most probable first."""

    predictions: list[PredictionOut]
    none_of_these: bool | None = Field(
        description="Whether no label fits; null without a threshold.", examples=[None]
    )


class ClassifyOut(BaseModel):
    """One result an image, in the order of the request."""

    results: list[ClassifiedOut]


class HuggingFaceParameters(BaseModel, strict=True):
    """Labels and their prompt template."""

    candidate_labels: Labels
    hypothesis_template: Template = "This is a photo of {}."


class HuggingFaceIn(BaseModel, strict=True):
    """The request of Hugging Face's clients for `zero_shot_image_classification`."""

    inputs: RequestImage = Field(examples=[PIXEL])
    parameters: HuggingFaceParameters = Field(examples=[{"candidate_labels": ["heart", "star"]}])


class HuggingFaceLabel(BaseModel):
    """One label; `score` is its probability."""

    label: str
    score: float


@router.post("/classify", summary="Classify images", responses=responses(400, 413))
async def classify(service: CurrentService, wanted: ClassifyIn) -> ClassifyOut:
    """A probability only compares the labels with each other: if none fits, the best of them still gets a high one."""
    if wanted.labels is None and wanted.model_fields_set & {"templates", "threshold"}:
        raise SettingsError(
            "templates, threshold: found without labels; send labels too, or leave these fields out"
        )
    images = [
        await read_image(image, service, f"images.{number}") for number, image in enumerate(wanted.images)
    ]
    if wanted.labels is None:
        rows = await service.classify_own(images)
    else:
        rows = await service.classify(images, wanted.labels, wanted.templates)
    results = []
    for row in rows:
        predictions = [PredictionOut(**one) for one in row]
        none = None if wanted.threshold is None else predictions[0].similarity < wanted.threshold
        results.append(ClassifiedOut(predictions=predictions[: wanted.top], none_of_these=none))
    return ClassifyOut(results=results)


@router.post(
    "/huggingface/zero-shot-image-classification",
    summary="Classify one image, in Hugging Face's format",
    responses=responses(400, 413),
)
async def zero_shot_image_classification(
    service: CurrentService, wanted: HuggingFaceIn
) -> list[HuggingFaceLabel]:
    """Clients of Hugging Face's inference API use this address in place of the model's name."""
    image = await read_image(wanted.inputs, service, "inputs")
    parameters = wanted.parameters
    (row,) = await service.classify([image], parameters.candidate_labels, [parameters.hypothesis_template])
    return [HuggingFaceLabel(label=one["label"], score=one["probability"]) for one in row]
