"""Zero-shot classification where an image shows several classes, or none: how well each class ranks the images."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress
from diptych.embed.source_rows import SkippedRow, count_reasons
from diptych.errors import DataError
from diptych.evaluation.metrics import (
    Flags,
    Floats,
    average_precisions,
    map11,
    map11_interval,
    wilson,
)
from diptych.evaluation.repeated_images import count_remark, rows_of_images
from diptych.evaluation.survey import embed_rows, survey
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import BuildClassifier, check_labels, classifier
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from diptych.models.image_model import ImageModel

LABELS = "labels"
DIFFICULT = "difficult"


class SeveralLabels(NamedTuple):
    """What a row of a source says about itself."""

    key: str
    labels: tuple[str, ...]
    difficult: tuple[str, ...]


class SeverallyLabelledRows(NamedTuple):
    """The images of a source by the position of their first readable row, and the classes that their labels are among.

    An image has the labels of all rows that show it; `remarks` say how many there were.
    """

    rows: dict[int, SeveralLabels]
    classes: LabelSet
    skipped: list[SkippedRow]
    remarks: tuple[str, ...]

    def keys(self, positions: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.rows[position].key for position in positions)

    def relevant(self, positions: Iterable[int]) -> Flags:
        """Return, (n, classes), whether each of those rows shows each class."""
        return _flags([self.rows[position].labels for position in positions], self.classes.names)

    def judged(self, positions: Sequence[int]) -> Flags:
        """Return, (n, classes), False where a class is difficult to see in a row and no label of it."""
        difficult = [self.rows[position].difficult for position in positions]
        return ~_flags(difficult, self.classes.names) | self.relevant(positions)


def evaluate_multi_label(
    model: ImageModel,
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
    """Measure the 11-point mean average precision (`map11`), that of VOC 2007 in the paper's tables.

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
    labelled = survey_several_labels(source, labels)
    classes = labelled.classes
    words = templates or classes.templates or TEMPLATES["plain"]
    weights = build(model, classes.phrases, words)
    images = embed_rows(model, preprocess, source, labelled.rows, batch_size=batch_size, progress=progress)
    similarity = images.vectors @ weights.numpy()
    relevant, judged = labelled.relevant(images.positions), labelled.judged(images.positions)
    if not relevant.any():
        raise DataError(f"{source.name}: no image that can be read shows a class; expected one at least")
    right = np.take_along_axis(relevant, similarity.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Report(
        task="multi-label",
        model=model_name,
        data=source.name,
        scores=score_rankings(similarity, relevant, judged, right),
        groups=score_classes(similarity, relevant, judged, classes.names),
        skipped=count_reasons([*labelled.skipped, *images.skipped]),
        remarks=labelled.remarks,
        details={"headline": "map11", "classes": len(classes.names), "templates": list(words)},
        outcomes=Outcomes(
            keys=labelled.keys(images.positions),
            scores={"top1": right.astype(np.float32)},
            positions=tuple(images.positions),
        ),
    )


def survey_several_labels(source: Source, labels: LabelSet | None) -> SeverallyLabelledRows:
    """Read the labels of every row before an image is decoded; the parameters are those of `evaluate_multi_label`.

    Raises:
        DataError: as `evaluate_multi_label` does.
    """
    rows = survey(source, _row)
    said = [(row.key, name) for row in rows.picked.values() for name in (*row.labels, *row.difficult)]
    if not said:
        raise DataError(f"{source.name}: no image has a label; expected names under {LABELS!r}")
    classes = labels or LabelSet.of(sorted({name for _, name in said}))
    check_labels(said, classes, source.name)
    joined = {
        first: _join([rows.picked[position] for position in positions])
        for first, positions in rows_of_images(rows).items()
    }
    return SeverallyLabelledRows(joined, classes, rows.skipped, count_remark(rows))


def score_rankings(scores: Floats, relevant: Flags, judged: Flags, right: Flags) -> Scores:
    """Return `map11` and `top1` of n images, of what a classifier says of each class.

    scores: (n, classes), the larger, the likelier. relevant, judged: (n, classes), as `metrics.map11` takes them.
    right: (n,), whether the likeliest class is one of the image's.
    """
    top1 = float(np.mean(right))
    return Scores(
        count=len(right),
        metrics={"map11": map11(scores, relevant, judged), "top1": top1},
        confidence={
            "map11": map11_interval(scores, relevant, judged),
            "top1": wilson(top1, len(right)),
        },
        chance={"map11": map11(np.zeros_like(scores), relevant, judged)},
    )


def score_classes(scores: Floats, relevant: Flags, judged: Flags, names: Sequence[str]) -> dict[str, Scores]:
    """Return the average precision of each class that an image shows, by its name, as `score_rankings` takes them."""
    found = average_precisions(scores, relevant, judged)
    chance = average_precisions(np.zeros_like(scores), relevant, judged)
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


def _join(of_image: Sequence[SeveralLabels]) -> SeveralLabels:
    return SeveralLabels(
        of_image[0].key,
        tuple(dict.fromkeys(name for row in of_image for name in row.labels)),
        tuple(dict.fromkeys(name for row in of_image for name in row.difficult)),
    )


def _row(example: Example) -> SeveralLabels:
    if LABELS not in example.metadata:
        known = ", ".join(sorted(example.metadata)) or "none"
        raise DataError(
            f"{example.key}: no {LABELS!r} in its metadata ({known}); with several classes an image they stand "
            'there: "labels": ["dog", "person"] in the JSON beside it, or a column `labels` with commas'
        )
    difficult = example.metadata.get(DIFFICULT)
    return SeveralLabels(
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
    """Return, (n, classes), whether each image has each name."""
    column = {name: index for index, name in enumerate(names)}
    flags = np.zeros((len(of_images), len(names)), np.bool_)
    for row, of_one in enumerate(of_images):
        flags[row, [column[name] for name in of_one]] = True
    return flags
