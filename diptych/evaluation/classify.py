"""Which of one's own labels an image shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from diptych.embed import Picture, Preprocessing, Progress, embed_images
from diptych.errors import SettingsError
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.prompts import TEMPLATES
from diptych.evaluation.zero_shot import BuildClassifier, classifier, logit_scale
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
    none_of_these: NotRequired[bool]  # where a threshold was given: whether no label's similarity reaches it


def classify(
    model: CLIP,
    preprocess: Preprocessing,
    images: Sequence[Picture],
    labels: LabelSet,
    *,
    templates: Sequence[str] | None = None,
    top: int | None = None,
    temperature: float = 1.0,
    threshold: float | None = None,
    build: BuildClassifier = classifier,
    progress: Progress | None = None,
) -> list[Classified]:
    """The labels of each image by probability, the first `top` of them (all when not given).

    A probability only compares the labels with one another: it is high for the best of bad ones too. The
    similarity is what can be compared between images: with a threshold of it, each answer says whether the image
    shows none of these. templates: those of `labels`, else the plain name, when not given. temperature: what the
    model's logits are divided by. `calibration` finds both numbers. build: makes the classifier.

    Raises:
        SettingsError: fewer than two labels; a temperature or a threshold that is none.
        ImageError: an image cannot be read.
    """
    if len(labels.names) < 2:
        raise SettingsError(f"one label ({labels.names[0]!r}) leaves nothing to choose; give at least two")
    if not temperature > 0:
        raise SettingsError(f"temperature {temperature}: expected a number above 0")
    if threshold is not None and not -1 <= threshold <= 1:
        raise SettingsError(f"threshold {threshold}: expected a cosine, -1..1")
    weights = build(model, labels.phrases, templates or labels.templates or TEMPLATES["plain"])
    similarity = torch.from_numpy(embed_images(model, preprocess, images, progress=progress)) @ weights
    ranked = ranked_labels(similarity, labels.names, logit_scale(model) / temperature, top)
    found = [
        Classified(image=_shown(image, number), predictions=predictions)
        for number, (image, predictions) in enumerate(zip(images, ranked, strict=True))
    ]
    if threshold is not None:
        for answer, best in zip(found, similarity.amax(dim=1).tolist(), strict=True):
            answer["none_of_these"] = best < threshold
    return found


def ranked_labels(
    similarity: Tensor, names: Sequence[str], scale: float, top: int | None
) -> list[list[Prediction]]:
    """The `top` labels of each image by probability, all when not given.

    similarity: (images, labels), cosines. scale: what they are multiplied by before the softmax.
    """
    probability = (scale * similarity).softmax(dim=1)
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        [
            Prediction(
                label=names[column],
                probability=float(probability[number, column]),
                similarity=float(similarity[number, column]),
            )
            for column in columns
        ]
        for number, columns in enumerate(order.tolist())
    ]


def _shown(image: Picture, number: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {number}"
