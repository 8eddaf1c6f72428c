"""Zero-shot classification where an image shows several classes, or none: how well each class ranks the images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diptych.data.example import Example
from diptych.data.sources import Source
from diptych.embed import Preprocessing, Progress, count_reasons
from diptych.errors import DataError
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.metrics import (
    Flags,
    Floats,
    average_precisions,
    map11,
    map11_interval,
    wilson,
)
from diptych.evaluation.prompts import TEMPLATES
from diptych.evaluation.report import Outcomes, Report, Scores
from diptych.evaluation.survey import embed_rows, survey
from diptych.evaluation.zero_shot import BuildClassifier, check_labels, classifier
from diptych.models.clip import CLIP

LABELS = "labels"
DIFFICULT = "difficult"


class _Row(NamedTuple):
    """What a row of the source says about itself."""

    key: str
    labels: tuple[str, ...]
    difficult: tuple[str, ...]


def evaluate_multi_label(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    labels: LabelSet | None = None,
    templates: Sequence[str] | None = None,
    build: BuildClassifier = classifier,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """11-point mean average precision (`map11`), the measure of VOC 2007 in the paper's tables.

    Each class ranks all images by their similarity to it. An example's classes stand in its metadata under
    `labels`, a list of names or one string with commas; an empty one is an image of none of the classes. Classes
    under `difficult` count neither for nor against the image, as VOC's own program has it. The other parameters
    are those of `evaluate_zero_shot`.

    `groups` has the average precision of each class, with the number of its images. `top1` is the share of images
    whose most similar class is one of theirs. `chance` is a model that says the same of every image: the share of
    the images that show a class, averaged over classes. Intervals are the bootstrap's over images, and Wilson's for
    `top1`.

    Raises:
        DataError: an example has no `labels`, or one outside the given classes; no image shows any class; or none
            can be read.
    """
    rows = survey(source, _row)
    named = sorted({name for row in rows.picked.values() for name in (*row.labels, *row.difficult)})
    if not named:
        raise DataError(f"{source.name}: no image has a label; expected names under {LABELS!r}")
    classes = labels or LabelSet.of(named)
    said = [(row.key, name) for row in rows.picked.values() for name in (*row.labels, *row.difficult)]
    check_labels(said, classes, source.name)
    words = templates or classes.templates or TEMPLATES["plain"]
    weights = build(model, classes.phrases, words)
    images = embed_rows(model, preprocess, source, rows.picked, batch_size=batch_size, progress=progress)
    kept = [rows.picked[position] for position in images.positions]
    similarity = images.vectors @ weights.numpy()
    relevant = _flags([row.labels for row in kept], classes.names)
    judged = ~_flags([row.difficult for row in kept], classes.names) | relevant
    if not relevant.any():
        raise DataError(f"{source.name}: no image that can be read shows a class; expected one at least")
    right = np.take_along_axis(relevant, similarity.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Report(
        task="multi-label",
        model=model_name,
        data=source.name,
        scores=_scores(similarity, relevant, judged, right),
        groups=_of_classes(similarity, relevant, judged, classes.names),
        skipped=count_reasons([*rows.skipped, *images.skipped]),
        details={"headline": "map11", "classes": len(classes.names), "templates": list(words)},
        outcomes=Outcomes(
            keys=tuple(row.key for row in kept),
            scores={"top1": right.astype(np.float32)},
            positions=tuple(images.positions),
        ),
    )


def _scores(similarity: Floats, relevant: Flags, judged: Flags, right: Flags) -> Scores:
    top1 = float(np.mean(right))
    return Scores(
        count=len(right),
        metrics={"map11": map11(similarity, relevant, judged), "top1": top1},
        confidence={
            "map11": map11_interval(similarity, relevant, judged),
            "top1": wilson(top1, len(right)),
        },
        chance={"map11": map11(np.zeros_like(similarity), relevant, judged)},
    )


def _of_classes(
    similarity: Floats, relevant: Flags, judged: Flags, names: Sequence[str]
) -> dict[str, Scores]:
    """Of each class that an image shows."""
    found = average_precisions(similarity, relevant, judged)
    chance = average_precisions(np.zeros_like(similarity), relevant, judged)
    counts = relevant.sum(axis=0)
    return {
        name: Scores(
            count=int(counts[place]),
            metrics={"map11": float(found[place])},
            confidence={},
            chance={"map11": float(chance[place])},
        )
        for place, name in enumerate(names)
        if counts[place]
    }


def _row(example: Example) -> _Row:
    if LABELS not in example.metadata:
        known = ", ".join(sorted(example.metadata)) or "none"
        raise DataError(
            f"{example.key}: no {LABELS!r} in its metadata ({known}); with several classes an image they stand "
            'there: "labels": ["dog", "person"] in the JSON beside it, or a column `labels` with commas'
        )
    difficult = example.metadata.get(DIFFICULT)
    return _Row(
        example.key,
        _names(example.metadata[LABELS], example.key, LABELS),
        () if difficult is None else _names(difficult, example.key, DIFFICULT),
    )


def _names(value: Any, key: str, field: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(name for name in map(str.strip, value.split(",")) if name)
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise DataError(f"{key}: {field!r} is {value!r}; expected a list of names, or one string with commas")


def _flags(of_images: Sequence[Sequence[str]], names: Sequence[str]) -> Flags:
    """(n, classes): whether each image has each name."""
    column = {name: index for index, name in enumerate(names)}
    flags = np.zeros((len(of_images), len(names)), np.bool_)
    for row, of_one in enumerate(of_images):
        flags[row, [column[name] for name in of_one]] = True
    return flags
