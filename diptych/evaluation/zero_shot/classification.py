"""Zero-shot classification: a classifier made of words (Radford et al. 2021, section 3.1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress, Vectors, embed_texts
from diptych.embed.source_rows import SkippedRow, count_reasons
from diptych.errors import DataError
from diptych.evaluation.metrics import Integers
from diptych.evaluation.repeated_images import count_remark, label_remark, without_repeats
from diptych.evaluation.survey import EmbeddedRows, embed_rows, encoded_rows, survey
from diptych.evaluation.task_report import Report, Scores
from diptych.evaluation.tasks import Headline, LabelFrom
from diptych.evaluation.zero_shot.answers import (
    Answers,
    answers,
    check_headline,
    likeliest,
    outcomes_of,
    score_answers,
)
from diptych.evaluation.zero_shot.class_labels import LabelSet, remark_on_numbers
from diptych.evaluation.zero_shot.prompts import TEMPLATES, check_templates, fill
from diptych.evaluation.zero_shot.text_likelihood import class_likelihoods
from diptych.models.capabilities import EmbedsPairs, EmbedsTexts, PredictsTexts
from diptych.models.image_model import ImageModel

# From the words of each class and the templates to the weights (embed_dim, classes), as `classifier` does.
BuildClassifier = Callable[[ImageModel, Sequence[Sequence[str]], Sequence[str]], Tensor]

# Prompts that are embedded at a time: 1,000 classes of 80 templates need not lie in memory at once.
_PROMPTS_AT_ONCE = 32_768


class LabelledRow(NamedTuple):
    """What a row of a source says about itself."""

    key: str
    label: str
    group: str


class LabelledRows(NamedTuple):
    """The readable rows of a source by their position, and the classes that their labels are among.

    Rows that show the same image and have the same label and group are one row, the first; `remarks` say so.
    """

    rows: dict[int, LabelledRow]
    classes: LabelSet
    skipped: list[SkippedRow]
    remarks: tuple[str, ...]

    def target(self, positions: Iterable[int]) -> Integers:
        """Return the classifier's column of the right class of each of those rows: (n,)."""
        column = {name: index for index, name in enumerate(self.classes.names)}
        return np.array([column[self.rows[position].label] for position in positions], np.int64)


def classifier(
    model: EmbedsTexts, labels: Sequence[str | Sequence[str]], templates: Sequence[str] = TEMPLATES["plain"]
) -> Tensor:
    """Build the weights (embed_dim, classes) of a linear classifier of unit-length image embeddings, float32 on the
    CPU.

    A class is a phrase or several. Each of its phrases in each template is embedded and brought to unit
    length; their mean, brought to unit length again, is the class's column: an ensemble in embedding space.
    """
    if not labels:
        raise ValueError("labels: expected at least one class")
    check_templates(templates, "templates")
    columns = []
    for part in _parts(class_prompts(labels, templates)):
        vectors = embed_texts(model, [prompt for prompts in part for prompt in prompts])
        columns.append(mean_directions(vectors, [len(prompts) for prompts in part]))
    return torch.from_numpy(np.concatenate(columns)).T


def class_prompts(labels: Sequence[str | Sequence[str]], templates: Sequence[str]) -> list[list[str]]:
    """Return the prompts of each class: each of its phrases in each template. A class is a phrase or several."""
    return [
        [fill(template, phrase) for phrase in phrases for template in templates]
        for phrases in ([label] if isinstance(label, str) else label for label in labels)
    ]


def mean_directions(vectors: Vectors, counts: Sequence[int]) -> Vectors:
    """Return each class's direction, (classes, embed_dim) of unit length: the mean of its prompts' embeddings.

    vectors: (prompts, embed_dim) of unit length, in the order of the classes. counts: the prompts of each class.
    """
    first = np.cumsum([0, *counts[:-1]])
    total = np.add.reduceat(vectors, first, axis=0)
    directions: Vectors = total / np.linalg.norm(total, axis=1, keepdims=True)
    return directions


def evaluate_zero_shot(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    labels: LabelSet | None = None,
    templates: Sequence[str] | None = None,
    label_from: LabelFrom = "label",
    group_by: str | None = None,
    headline: Headline = "top1",
    build: BuildClassifier = classifier,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Measure a model that has seen none of the labels as labels: `score_answers` has the metrics and intervals.

    labels: the classes; every distinct one of the source when not given. templates: those of `labels`, else
    the plain name, when not given. label_from: where an example's class stands, in its label or its first
    caption. group_by: a name in the examples' metadata; each of its values is reported on its own as well.
    headline: the metric that stands first in the report. build: makes the classifier; a cached one saves time.

    Rows that show the same image with the same label count once; with different labels, each counts and `remarks` say
    so. Intervals hold for images drawn independently: where one concept is drawn several times, those of the groups are
    the ones to read.

    Raises:
        DataError: no labels, a label outside `labels`, no such metadata, or no readable image.
        SettingsError: `headline` is unknown, or does not fit the number of classes.
    """
    labelled = survey_labels(source, labels, label_from=label_from, group_by=group_by)
    rows, classes = labelled.rows, labelled.classes
    if labels is None and (remark := remark_on_numbers(classes)):
        labelled = labelled._replace(remarks=(*labelled.remarks, remark))
    check_headline(headline, len(classes.names), {row.label for row in rows.values()}, source.name)
    words = templates or classes.templates or TEMPLATES["plain"]
    details: dict[str, Any] = {"headline": headline, "classes": len(classes.names), "templates": list(words)}
    if model.text_predictor is None:
        weights = build(model, classes.phrases, words)
        images = embed_rows(model, preprocess, source, rows, batch_size=batch_size, progress=progress)
        said = answers(images.vectors, weights, labelled.target(images.positions), logit_scale(model))
    else:
        images, said, whole = _predicted(
            model.text_predictor,
            preprocess,
            source,
            labelled,
            words,
            batch_size=batch_size,
            progress=progress,
        )
        details["top1_whole_text"] = whole
    return _report(
        labelled,
        images,
        said,
        model_name=model_name,
        data=source.name,
        details=details,
        grouped=group_by is not None,
    )


def _report(
    labelled: LabelledRows,
    images: EmbeddedRows,
    said: Answers,
    *,
    model_name: str,
    data: str,
    details: Mapping[str, Any],
    grouped: bool,
) -> Report:
    rows = [labelled.rows[position] for position in images.positions]
    names = labelled.classes.names
    groups = np.array([row.group for row in rows])
    headline = details["headline"]

    def scores(part: Answers) -> Scores:
        return score_answers(part, len(names), headline)

    return Report(
        task="zero-shot",
        model=model_name,
        data=data,
        scores=scores(said),
        groups={name: scores(said.only(groups == name)) for name in sorted({*groups.tolist()}) if grouped},
        skipped=count_reasons([*labelled.skipped, *images.skipped]),
        remarks=labelled.remarks,
        details=details,
        outcomes=outcomes_of(
            said,
            headline,
            keys=tuple(row.key for row in rows),
            labels=names,
            positions=tuple(images.positions),
        ),
    )


def _predicted(
    model: PredictsTexts,
    preprocess: Preprocessing,
    source: Source,
    labelled: LabelledRows,
    templates: Sequence[str],
    *,
    batch_size: int,
    progress: Progress | None,
) -> tuple[EmbeddedRows, Answers, float]:
    """Return the answers of a model that predicts texts, and its accuracy by the probability of whole texts.

    It chooses the class whose text it finds likeliest, by the mean over the text's tokens.
    """
    prompts = class_prompts(labelled.classes.phrases, templates)
    images = encoded_rows(
        class_likelihoods(model, prompts),
        preprocess,
        source,
        labelled.rows,
        device=model.device,
        batch_size=batch_size,
        progress=progress,
    )
    target = labelled.target(images.positions)
    by_token, whole = np.split(images.vectors, 2, axis=1)
    right = likeliest(whole, target).ranks < 1
    return images, likeliest(by_token, target), float(np.mean(right))


def survey_labels(
    source: Source,
    labels: LabelSet | None,
    *,
    label_from: LabelFrom = "label",
    group_by: str | None = None,
) -> LabelledRows:
    """Read the label of every row, before an image is decoded; the parameters are those of `evaluate_zero_shot`.

    Raises:
        DataError: as `evaluate_zero_shot` does.
    """
    rows = survey(
        source,
        lambda example: LabelledRow(example.key, _label(example, label_from), _group(example, group_by)),
    )
    classes = labels or LabelSet.of(sorted({row.label for row in rows.picked.values()}))
    check_labels(((row.key, row.label) for row in rows.picked.values()), classes, source.name)
    remarks = (
        *count_remark(rows),
        *label_remark(rows, lambda row: row.label, lambda row: row.key),
    )
    distinct = without_repeats(rows, lambda row: (row.label, row.group))
    return LabelledRows(distinct, classes, rows.skipped, remarks)


def check_labels(labels: Iterable[tuple[str, str]], classes: LabelSet, where: str) -> None:
    """Check that every label of the data is one of the classes.

    labels: pairs of an example's key and a label of it. where: the data, for the message.

    Raises:
        DataError: a label is not among the classes; names the example.
    """
    known = frozenset(classes.names)
    for key, label in labels:
        if label not in known:
            raise DataError(
                f"{where}: {key}: the label {label!r} is not among the {len(known)} given "
                f"({_first_of(classes.names)}); add it to the labels, or correct it"
            )


def logit_scale(model: EmbedsPairs) -> float:
    """Return what a model multiplies its similarities by: exp of its parameter, 100 for the published models."""
    return float(model.logit_scale.detach().float().exp())


def _parts(prompts: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    parts: list[list[Sequence[str]]] = [[]]
    held = 0
    for ways in prompts:
        if parts[-1] and held + len(ways) > _PROMPTS_AT_ONCE:
            parts.append([])
            held = 0
        parts[-1].append(ways)
        held += len(ways)
    return parts


def _label(example: Example, label_from: LabelFrom) -> str:
    if label_from == "caption":
        if not example.captions:
            raise DataError(f"{example.key}: has no caption; expected its first caption to name its class")
        return example.captions[0]
    if example.label is None:
        raise DataError(
            f"{example.key}: has no label; zero-shot evaluation needs class folders, a label column, "
            "`label` in a shard's JSON, or labels taken from the captions"
        )
    return example.label


def _group(example: Example, group_by: str | None) -> str:
    if group_by is None:
        return ""
    if group_by not in example.metadata:
        known = ", ".join(sorted(example.metadata)) or "none"
        raise DataError(f"{example.key}: has no {group_by!r} to group by; its metadata: {known}")
    return str(example.metadata[group_by])


def _first_of(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
