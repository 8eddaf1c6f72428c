"""Zero-shot classification: a classifier made of words (Radford et al. 2021, section 3.1)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diptych.data.example import Example
from diptych.data.sources import Source
from diptych.embed import Preprocessing, Progress, Vectors, count_reasons, embed_texts
from diptych.errors import DataError
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.metrics import (
    Flags,
    Integers,
    first_relevant,
    mean_per_class,
    mean_per_class_interval,
    share_within,
    wilson,
)
from diptych.evaluation.prompts import TEMPLATES, check_templates, fill
from diptych.evaluation.report import Report, Scores
from diptych.evaluation.survey import embed_rows, survey
from diptych.models.clip import CLIP

LabelFrom = Literal["label", "caption"]

# Prompts that are embedded at a time: 1,000 classes of 80 templates need not lie in memory at once.
_PROMPTS_AT_ONCE = 8192


def classifier(
    model: CLIP, labels: Sequence[str | Sequence[str]], templates: Sequence[str] = TEMPLATES["plain"]
) -> Tensor:
    """The weights (embed_dim, classes) of a linear classifier of unit-length image embeddings, float32 on the
    CPU.

    A class is a phrase or several. Each of its phrases in each template is embedded and brought to unit
    length; their mean, brought to unit length again, is the class's column: an ensemble in embedding space.
    """
    if not labels:
        raise ValueError("labels: expected at least one class")
    check_templates(templates, "templates")
    prompts = [
        [fill(template, phrase) for phrase in phrases for template in templates]
        for phrases in ([label] if isinstance(label, str) else label for label in labels)
    ]
    columns = [_mean_directions(model, part) for part in _parts(prompts)]
    return torch.from_numpy(np.concatenate(columns)).T


def evaluate_zero_shot(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    labels: LabelSet | None = None,
    templates: Sequence[str] | None = None,
    label_from: LabelFrom = "label",
    group_by: str | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Top-1, top-5 and mean per-class accuracy of a model that has seen none of the labels as labels.

    labels: the classes; every distinct one of the source when not given. templates: those of `labels`, else
    the plain name, when not given. label_from: where an example's class stands, in its label or its first
    caption. group_by: a name in the examples' metadata; each of its values is reported on its own as well.

    `chance` is guessing; `majority` is always saying the most frequent class. `tied` is the share of images
    for which a wrong class has exactly the right one's similarity; ties go to the class that is listed first.
    Intervals are Wilson's over images. They hold for images drawn
    independently: where one concept is drawn several times, those of the groups are the ones to read.

    Raises:
        DataError: no labels, a label outside `labels`, no such metadata, or no readable image.
    """
    rows = survey(source, lambda example: (_label(example, label_from), _group(example, group_by)))
    classes = labels or LabelSet.of(sorted({label for label, _ in rows.picked.values()}))
    column = {name: index for index, name in enumerate(classes.names)}
    for label, _ in rows.picked.values():
        if label not in column:
            given = f"the {len(column)} given ({_first_of(classes.names)})"
            raise DataError(f"{source.name}: the label {label!r} is not among {given}; add it to the labels")
    weights = classifier(model, classes.phrases, templates or classes.templates or TEMPLATES["plain"])
    images = embed_rows(model, preprocess, source, rows.picked, batch_size=batch_size, progress=progress)
    target = np.array([column[rows.picked[position][0]] for position in images.positions], np.int64)
    member = np.array([rows.picked[position][1] for position in images.positions])
    ranks, tied = first_relevant(images.vectors, weights.T.numpy(), target[:, None].tolist())

    def scores(part: Flags) -> Scores:
        return _scores(ranks[part], tied[part], target[part], len(column))

    return Report(
        task="zero-shot",
        model=model_name,
        data=source.name,
        scores=scores(np.ones(len(target), np.bool_)),
        groups={name: scores(member == name) for name in sorted(set(member.tolist()))} if group_by else {},
        skipped=count_reasons([*rows.skipped, *images.skipped]),
    )


def _scores(ranks: Integers, tied: Flags, target: Integers, classes: int) -> Scores:
    top1, top5 = share_within(ranks, 1), share_within(ranks, 5)
    return Scores(
        count=len(ranks),
        metrics={
            "top1": top1,
            "top5": top5,
            "mean_per_class": mean_per_class(ranks < 1, target),
            "tied": float(np.mean(tied)),
        },
        confidence={
            "top1": wilson(top1, len(ranks)),
            "top5": wilson(top5, len(ranks)),
            "mean_per_class": mean_per_class_interval(ranks < 1, target),
        },
        chance={
            "top1": 1 / classes,
            "top5": min(1.0, 5 / classes),
            "mean_per_class": 1 / classes,
            "majority": float(np.bincount(target).max() / len(target)),
        },
    )


def _mean_directions(model: CLIP, prompts: Sequence[Sequence[str]]) -> Vectors:
    """(classes, embed_dim), unit length: the mean of each class's prompts."""
    flat = embed_texts(model, [prompt for ways in prompts for prompt in ways])
    first = np.cumsum([0, *(len(ways) for ways in prompts[:-1])])
    total = np.add.reduceat(flat, first, axis=0)
    directions: Vectors = total / np.linalg.norm(total, axis=1, keepdims=True)
    return directions


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
