"""Which of one's own labels an image shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.embed.encode import (
    ImageInput,
    Preprocessing,
    Progress,
    Unreadable,
    embed_images,
    encode_by,
    preprocessed,
)
from diptych.errors import ImageError, SettingsError
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import BuildClassifier, classifier, logit_scale
from diptych.evaluation.zero_shot.prompts import check_templates, suitable_templates, templates_named
from diptych.models.capabilities import ClassHead, lacks
from diptych.models.image_model import ImageModel


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
    model: ImageModel,
    preprocess: Preprocessing,
    images: ImageInput | Sequence[ImageInput],
    labels: Sequence[str] | LabelSet | None = None,
    *,
    templates: str | Sequence[str] | None = None,
    top: int | None = None,
    temperature: float = 1.0,
    threshold: float | None = None,
    build: BuildClassifier = classifier,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> list[Classified]:
    """Rank labels for each image, without training.

    A probability only compares the labels with one another: it is high for the best of bad ones too. The similarity
    is what can be compared between images. `diptych evaluate calibrate` finds a temperature and a threshold.

    Args:
        model: a model of `load`.
        preprocess: what `load` returned beside it.
        images: one image or several: paths, the bytes of files, Pillow images, or arrays (height, width, 3) of 8-bit
            RGB.
        labels: two names or more, without repetition; the classes that the model was fine-tuned on when not given.
        templates: words around a label, such as "a photo of a {}."; several are averaged. The name of a list ("plain",
            "photo", "drawings", "imagenet", "imagenet-7") or a file of templates stands for those in it. What suits
            the model when not given: the label alone for models that Diptych trained, a photo of it for others.
        top: number of labels in an answer; all when not given.
        temperature: what the model's logits are divided by, above 0.
        threshold: similarity, -1 to 1, below which an image shows none of the labels.
        build: makes the classifier of model, phrases and templates; a cache of classifiers, for one.
        progress: gets the number of images done since the last call.
        unreadable: gets the position of an image that cannot be read, and the `ImageError`; that image then has no
            answer. Such an image is an error when not given.

    Returns:
        A dictionary for each image: `image` (its path, or its position), `predictions`, the most probable first (each
        with `label`, `probability` and `similarity`, a cosine), and with a threshold `none_of_these`.

    Raises:
        SettingsError: fewer than two labels, a number out of bounds, or no labels for a model without classes.
        ImageError: an image cannot be read, and there is no `unreadable`.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> answers = diptych.classify(model, preprocess, "images/bicycle.webp", ["a bicycle", "a guitar"])
        >>> answers[0]["predictions"][0]["label"]
        'a bicycle'
    """
    if isinstance(images, ImageInput):
        images = [images]
    if labels is None:
        if templates is not None or threshold is not None or temperature != 1.0:
            raise SettingsError(
                "templates, temperature and threshold go with labels in words; give labels too"
            )
        return classify_own(model, preprocess, images, top=top, progress=progress, unreadable=unreadable)
    if isinstance(labels, str):
        raise SettingsError(f'labels {labels!r}: one string; expected a list of names, as in ["cat", "dog"]')
    if not isinstance(labels, LabelSet):
        labels = LabelSet.of(labels)
    if len(labels.names) < 2:
        raise SettingsError(f"one label ({labels.names[0]!r}) leaves nothing to choose; give at least two")
    if not temperature > 0:
        raise SettingsError(f"temperature {temperature}: expected a number above 0")
    if threshold is not None and not -1 <= threshold <= 1:
        raise SettingsError(f"threshold {threshold}: expected a cosine, -1..1")
    weights = build(model, labels.phrases, _templates(model, templates, labels))
    bad = _Unreadable(unreadable)
    vectors = embed_images(model, preprocess, images, progress=progress, unreadable=bad.note)
    similarity = torch.from_numpy(vectors) @ weights
    logits = logit_scale(model) / temperature * similarity
    ranked = ranked_labels(logits, similarity, labels.names, top)
    shown = [_shown(image, number) for number, image in enumerate(images) if number not in bad.positions]
    found = [
        Classified(image=image, predictions=predictions)
        for image, predictions in zip(shown, ranked, strict=True)
    ]
    if threshold is not None:
        for answer, best in zip(found, similarity.amax(dim=1).tolist(), strict=True):
            answer["none_of_these"] = best < threshold
    return found


def _templates(model: ImageModel, given: str | Sequence[str] | None, labels: LabelSet) -> tuple[str, ...]:
    if given is None:
        return labels.templates or suitable_templates(model)
    return templates_named(given) if isinstance(given, str) else check_templates(given, "templates")


def classify_own(
    model: ImageModel,
    preprocess: Preprocessing,
    images: Sequence[ImageInput],
    *,
    top: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> list[Classified]:
    """Rank the classes of each image that the model has learned from labels, by probability.

    Where an image may be of several, each has a probability of its own. `similarity` is the cosine between what the
    last layer sees of the image and the class's weights. unreadable: as for `classify`.

    Raises:
        SettingsError: the model has no classes. ImageError: an image cannot be read.
    """
    head = model.class_head
    if head is None:
        raise lacks(model, "has classes")
    encode = encode_by(model, model.class_features)
    bad = _Unreadable(unreadable)
    ranked: list[list[Prediction]] = []
    for pixels, done in preprocessed(preprocess, images, batch_size, bad.note):
        if pixels:
            ranked += ranked_classes(head, torch.from_numpy(encode(pixels)), top)
        if progress is not None:
            progress(done)
    shown = [_shown(image, number) for number, image in enumerate(images) if number not in bad.positions]
    return [
        Classified(image=image, predictions=predictions)
        for image, predictions in zip(shown, ranked, strict=True)
    ]


class _Unreadable:
    """The positions of images that cannot be read; raises the first error where nobody wants to be told."""

    def __init__(self, tell: Unreadable | None) -> None:
        self.positions: set[int] = set()
        self._tell = tell

    def note(self, position: int, error: ImageError) -> None:
        if self._tell is None:
            raise error
        self.positions.add(position)
        self._tell(position, error)


def ranked_classes(head: ClassHead, seen: Tensor, top: int | None) -> list[list[Prediction]]:
    """Return the `top` classes of each image by probability, all when not given, as `classify_own` does.

    seen: (images, width) float32, of `class_features`.
    """
    weight, bias = (value.detach().float().cpu() for value in (head.weight, head.bias))
    similarity = F.normalize(seen, dim=1) @ F.normalize(weight, dim=1).T
    return ranked_labels(seen @ weight.T + bias, similarity, head.classes, top, several=head.several)


def ranked_labels(
    logits: Tensor, similarity: Tensor, names: Sequence[str], top: int | None, *, several: bool = False
) -> list[list[Prediction]]:
    """Return the `top` labels of each image by probability, all when not given.

    logits, similarity: (images, labels). several: an image may have several labels, each with a probability of its own.
    """
    probability = logits.sigmoid() if several else logits.softmax(dim=1)
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :top]
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


def _shown(image: ImageInput, number: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {number}"
