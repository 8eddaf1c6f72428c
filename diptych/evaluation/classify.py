"""Which of one's own labels an image shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch

from diptych.embed import Picture, Preprocessing, Progress, embed_images
from diptych.errors import SettingsError
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.prompts import TEMPLATES
from diptych.evaluation.zero_shot import classifier
from diptych.models.clip import CLIP


class Prediction(TypedDict):
    """One label of one image."""

    label: str
    probability: float  # among the given labels: softmax of the scaled similarities
    similarity: float  # cosine, -1..1


class Classified(TypedDict):
    """One image, its labels from the most to the least probable."""

    image: str
    predictions: list[Prediction]


def classify(
    model: CLIP,
    preprocess: Preprocessing,
    images: Sequence[Picture],
    labels: LabelSet,
    *,
    templates: Sequence[str] | None = None,
    top: int | None = None,
    progress: Progress | None = None,
) -> list[Classified]:
    """The labels of each image by probability, the first `top` of them (all when not given).

    A probability only compares the labels with one another: it is high for the best of bad ones too. The
    similarity is what can be compared between images. templates: those of `labels`, else the plain name, when
    not given.

    Raises:
        SettingsError: fewer than two labels.
        ImageError: an image cannot be read.
    """
    if len(labels.names) < 2:
        raise SettingsError(f"one label ({labels.names[0]!r}) leaves nothing to choose; give at least two")
    weights = classifier(model, labels.phrases, templates or labels.templates or TEMPLATES["plain"])
    similarity = torch.from_numpy(embed_images(model, preprocess, images, progress=progress)) @ weights
    scale = model.logit_scale.detach().float().exp().cpu()
    probability = (scale * similarity).softmax(dim=1)
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        Classified(
            image=_shown(image, number),
            predictions=[
                Prediction(
                    label=labels.names[column],
                    probability=float(probability[number, column]),
                    similarity=float(similarity[number, column]),
                )
                for column in order[number].tolist()
            ],
        )
        for number, image in enumerate(images)
    ]


def _shown(image: Picture, number: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {number}"
