"""Classification: which of one's own labels a picture shows, or which class that the model was fine-tuned on."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from diptych.errors import SettingsError
from diptych.serving.api.image_inputs import PIXEL, WHOLE, Picture, Served, Strict, read_picture
from diptych.serving.api.problems import responses

router = APIRouter(prefix="/v1", tags=["classification"])

Label = Annotated[str, Field(min_length=1, max_length=300)]
Labels = Annotated[list[Label], Field(min_length=2, max_length=256, json_schema_extra={"uniqueItems": True})]
Template = Annotated[str, Field(min_length=2, max_length=300, pattern=r"\{\}")]


class ClassifyIn(Strict):
    """Pictures, and the labels to choose from."""

    images: list[Picture] = Field(min_length=1, max_length=64)
    labels: Labels | None = Field(
        default=None,
        description="Without them: the classes that the model was fine-tuned on. `templates` and `threshold` go with "
        "labels.",
        examples=[["heart", "star"]],
    )
    templates: list[Template] = Field(
        default=["{}"],
        min_length=1,
        max_length=64,
        description="Words around the label, with {} in its place; several are averaged. Labels times templates: at "
        "most 256.",
        examples=[["a drawing of a {}."]],
    )
    top: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="Labels in the answer; all without it."
    )
    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        description="Similarity below which it is none of these.",
    )


class PredictionOut(BaseModel):
    """One label of one picture."""

    label: str = Field(examples=["heart"])
    probability: float = Field(
        description="Among all labels; of each by itself where several may hold.", examples=[0.93]
    )
    similarity: float = Field(description="Cosine, -1..1: comparable between pictures.", examples=[0.28])


class ClassifiedOut(BaseModel):
    """One picture, its labels from the most to the least probable."""

    predictions: list[PredictionOut]
    none_of_these: bool | None = Field(description="Null without a threshold.", examples=[None])


class ClassifyOut(BaseModel):
    """The pictures in their order."""

    results: list[ClassifiedOut]


class HuggingFaceParameters(BaseModel, strict=True):
    """Labels, and the words around them."""

    candidate_labels: Labels
    hypothesis_template: Template = "This is a photo of {}."


class HuggingFaceIn(BaseModel, strict=True):
    """What Hugging Face's clients send for `zero_shot_image_classification`."""

    inputs: Picture = Field(examples=[PIXEL])
    parameters: HuggingFaceParameters = Field(examples=[{"candidate_labels": ["heart", "star"]}])


class HuggingFaceLabel(BaseModel):
    """One label; `score` is its probability."""

    label: str
    score: float


@router.post("/classify", summary="Choose among labels", responses=responses(400, 413))
async def classify(service: Served, wanted: ClassifyIn) -> ClassifyOut:
    """A probability only compares the labels with one another: it is high for the best of bad ones too."""
    if wanted.labels is None and wanted.model_fields_set & {"templates", "threshold"}:
        raise SettingsError("templates, threshold: they go with labels; name the labels, or leave them out")
    pictures = [
        await read_picture(image, service, f"images.{number}") for number, image in enumerate(wanted.images)
    ]
    if wanted.labels is None:
        rows = await service.classify_own(pictures)
    else:
        rows = await service.classify(pictures, wanted.labels, wanted.templates)
    results = []
    for row in rows:
        predictions = [PredictionOut(**one) for one in row]
        none = None if wanted.threshold is None else predictions[0].similarity < wanted.threshold
        results.append(ClassifiedOut(predictions=predictions[: wanted.top], none_of_these=none))
    return ClassifyOut(results=results)


@router.post(
    "/huggingface/zero-shot-image-classification",
    summary="The same, in Hugging Face's shape",
    responses=responses(400, 413),
)
async def zero_shot_image_classification(service: Served, wanted: HuggingFaceIn) -> list[HuggingFaceLabel]:
    """For clients of Hugging Face's inference API, with this address in place of the model."""
    picture = await read_picture(wanted.inputs, service, "inputs")
    parameters = wanted.parameters
    (row,) = await service.classify([picture], parameters.candidate_labels, [parameters.hypothesis_template])
    return [HuggingFaceLabel(label=one["label"], score=one["probability"]) for one in row]
