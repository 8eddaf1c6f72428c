"""Image-text retrieval in both directions, with as many captions an image as there are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from diptych.data.left_out import ORPHAN, left_out_of
from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress, embed_texts
from diptych.embed.source_rows import count_reasons
from diptych.errors import DataError
from diptych.evaluation.metrics import (
    Flags,
    Floats,
    Integers,
    Interval,
    chance_within,
    first_relevant,
    share_within,
    wilson,
)
from diptych.evaluation.repeated_images import count_remark, rows_of_images
from diptych.evaluation.survey import embed_rows, survey
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.models.capabilities import EmbedsPairs

CUTOFFS = (1, 5, 10)

Relevant = list[list[int]]
Direction = Literal["image_to_text", "text_to_image"]


@dataclass(frozen=True)
class Ranked:
    """The queries of one direction.

    ranks, tied: (queries,), see `first_relevant`. relevant: the right rows for each. gallery: how many there are.
    """

    ranks: Integers
    tied: Flags
    relevant: Sequence[Sequence[int]]
    gallery: int


class _Row(NamedTuple):
    key: str
    captions: tuple[str, ...]


def evaluate_retrieval(
    model: EmbedsPairs,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    truncate: bool = False,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Measure R@1, R@5, R@10 and the median rank, image to text and text to image.

    Rows that show the same image are one image with the captions of all of them. Every caption of every image is one
    text. R@k is the share of queries with at least one right answer among the first k, as published figures have it;
    the rank is that of the first right answer, from 1. A text that several images share is right for each of them.
    Images without a caption are skipped, and counted. Intervals are Wilson's with one trial an image, also from text
    to image: the captions of one image are not independent.

    Raises:
        DataError: no image has a caption, or none could be read.
        TextError: a caption is too long and `truncate` is off.
    """
    rows = survey(source, lambda example: _Row(example.key, example.captions))
    of_images = {
        first: joined_captions([rows.picked[position].captions for position in positions])
        for first, positions in rows_of_images(rows).items()
    }
    captions = {position: texts for position, texts in of_images.items() if texts}
    distinct = list(dict.fromkeys(text for texts in captions.values() for text in texts))
    if not distinct:
        alone = left_out_of(source).first(ORPHAN)
        hint = f"; if they are in {alone[0]}, name that file in place of the folder" if alone else ""
        raise DataError(f"{source.name}: no image has a caption; retrieval needs one or more an image{hint}")
    # Texts first: one that is too long stops the work before it has begun.
    texts = embed_texts(model, distinct, truncate=truncate)
    place = {text: row for row, text in enumerate(distinct)}
    images = embed_rows(model, preprocess, source, captions, batch_size=batch_size, progress=progress)
    words = [captions[position] for position in images.positions]
    gallery = texts[[place[text] for of_one in words for text in of_one]]
    without = len(of_images) - len(captions)
    ranked = rank_both(images.vectors, gallery, *relevant_rows(words))
    return Report(
        task="retrieval",
        model=model_name,
        data=source.name,
        scores=retrieval_scores(ranked),
        skipped=count_reasons([*rows.skipped, *images.skipped])
        | ({"no caption": without} if without else {}),
        remarks=count_remark(rows),
        outcomes=Outcomes(
            keys=tuple(rows.picked[position].key for position in images.positions),
            scores=_of_images(ranked, [len(of_one) for of_one in words]),
            positions=tuple(images.positions),
        ),
    )


def joined_captions(of_rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the captions of an image from those of its rows, in order, equal ones once."""
    return tuple(dict.fromkeys(text for texts in of_rows for text in texts))


def relevant_rows(captions: Sequence[Sequence[str]]) -> tuple[Relevant, Relevant]:
    """Return what is right for what, where `captions[i]` are image i's and the texts are all of them one after
    another.

    Returns the texts that are right for each image, and the images that are right for each text: its own, and
    those with an equal caption.
    """
    owners: defaultdict[str, list[int]] = defaultdict(list)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    flat = [(image, text) for image, texts in enumerate(captions) for text in texts]
    for row, (image, text) in enumerate(flat):
        owners[text].append(image)
        rows[text].append(row)
    texts_of_image = [sorted({row for text in texts for row in rows[text]}) for texts in captions]
    return texts_of_image, [sorted(set(owners[text])) for _, text in flat]


def rank_both(
    images: Floats,
    texts: Floats,
    texts_of_image: Sequence[Sequence[int]],
    images_of_text: Sequence[Sequence[int]],
) -> dict[Direction, Ranked]:
    """Return the ranks of unit-length embeddings, images (n, dim) and texts (m, dim), for the given right answers."""
    return {
        "image_to_text": Ranked(*first_relevant(images, texts, texts_of_image), texts_of_image, len(texts)),
        "text_to_image": Ranked(*first_relevant(texts, images, images_of_text), images_of_text, len(images)),
    }


def retrieval_scores(ranked: Mapping[Direction, Ranked]) -> Scores:
    """Return the metrics of both directions."""
    count = len(ranked["image_to_text"].ranks)
    metrics: dict[str, float] = {}
    confidence: dict[str, Interval] = {}
    chance: dict[str, float] = {}
    for name, queries in ranked.items():
        for k in CUTOFFS:
            share = share_within(queries.ranks, k)
            metrics[f"{name}_r{k}"] = share
            confidence[f"{name}_r{k}"] = wilson(share, count)
            by_chance = [chance_within(len(right), queries.gallery, k) for right in queries.relevant]
            chance[f"{name}_r{k}"] = float(np.mean(by_chance))
        metrics[f"{name}_median_rank"] = float(np.median(queries.ranks + 1))
        metrics[f"{name}_tied"] = float(np.mean(queries.tied))
    return Scores(count=count, metrics=metrics, confidence=confidence, chance=chance)


def _of_images(ranked: Mapping[Direction, Ranked], captions: Sequence[int]) -> dict[str, Floats]:
    """Return what each image adds to R@k, (n,) each. captions: (n,), how many each image has.

    The captions of an image are weighed by their number, so that the mean over images is that over captions.
    """
    counts = np.asarray(captions)
    first = np.cumsum([0, *captions[:-1]])
    scores: dict[str, Floats] = {}
    for k in CUTOFFS:
        scores[f"image_to_text_r{k}"] = (ranked["image_to_text"].ranks < k).astype(np.float32)
        right = np.add.reduceat((ranked["text_to_image"].ranks < k).astype(np.float64), first)
        scores[f"text_to_image_r{k}"] = (right / counts.mean()).astype(np.float32)
    return scores
