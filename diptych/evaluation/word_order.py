"""Does a model read the order of words? An image, its caption, and one of the same words that is wrong.

A model that takes a text for a bag of words finds both equally like the image, and is at chance by construction. The
same question is asked by Winoground (Thrush et al. 2022) and by ARO (Yuksekgonul et al. 2022) of photographs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress, embed_texts
from diptych.embed.source_rows import count_reasons
from diptych.errors import DataError
from diptych.evaluation.metrics import Floats, Integers, wilson
from diptych.evaluation.repeated_images import count_remark
from diptych.evaluation.survey import EmbeddedRows, embed_rows, feature_rows, survey
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.zero_shot.text_likelihood import pair_likelihoods
from diptych.models.image_model import ImageModel

# Differences of this size are rounding: sums over the same words in another order.
_EQUAL = 1e-6


class _Row(NamedTuple):
    key: str
    right: str
    wrong: str
    group: str


def evaluate_word_order(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Measure the share of images whose caption the model prefers to the wrong one; no preference counts half.

    source: each example has its caption first and the wrong one as `foil` in its metadata; the values of `exchange`,
    where there are any, are reported on their own as well. `tied` is the share without a preference. Intervals are
    Wilson's, with one trial an image: rows that show the same image are questions of their own, but not independent.

    Raises:
        DataError: an example without a caption or a foil, or no readable image.
    """
    rows = survey(source, _row)
    found = rows.picked
    measure = _compare_captions if model.text_predictor is None else _compare_predictions
    images, margin = measure(model, preprocess, source, found, batch_size=batch_size, progress=progress)
    pairs = [found[position] for position in images.positions]
    preferred = np.where(np.abs(margin) <= _EQUAL, 0.5, margin > 0).astype(np.float32)
    groups = np.array([row.group for row in pairs])
    shown = np.array([rows.images[position] for position in images.positions])
    return Report(
        task="word-order",
        model=model_name,
        data=source.name,
        scores=_scores(preferred, shown),
        groups={
            name: _scores(preferred[groups == name], shown[groups == name])
            for name in sorted({*groups.tolist()})
            if name
        },
        skipped=count_reasons([*rows.skipped, *images.skipped]),
        remarks=count_remark(rows),
        outcomes=Outcomes(
            keys=tuple(row.key for row in pairs),
            scores={"accuracy": preferred},
            positions=tuple(images.positions),
        ),
    )


def _compare_captions(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    found: Mapping[int, _Row],
    *,
    batch_size: int,
    progress: Progress | None,
) -> tuple[EmbeddedRows, Floats]:
    """Return the images, and by how much each is nearer to its caption than to the wrong one: (n,) of cosines."""
    images = embed_rows(model, preprocess, source, found, batch_size=batch_size, progress=progress)
    pairs = [found[position] for position in images.positions]
    right = embed_texts(model, [row.right for row in pairs], truncate=True)
    wrong = embed_texts(model, [row.wrong for row in pairs], truncate=True)
    return images, (images.vectors * (right - wrong)).sum(axis=1)


def _compare_predictions(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    found: Mapping[int, _Row],
    *,
    batch_size: int,
    progress: Progress | None,
) -> tuple[EmbeddedRows, Floats]:
    """Return the images, and by how much a predictor finds each caption likelier: (n,) of mean log p a token."""
    predictor = model.text_predictor
    assert predictor is not None
    images = feature_rows(
        model,
        preprocess,
        source,
        found,
        features=predictor.see,
        batch_size=batch_size,
        progress=progress,
    )
    pairs = [found[position] for position in images.positions]
    right = pair_likelihoods(predictor, images.vectors, [row.right for row in pairs])
    return images, right - pair_likelihoods(predictor, images.vectors, [row.wrong for row in pairs])


def _scores(preferred: Floats, images: Integers) -> Scores:
    """Return the scores of n rows. images: (n,), equal for rows of one image, which are not independent trials."""
    count = len(preferred)
    accuracy = float(np.mean(preferred, dtype=np.float64))
    return Scores(
        count=count,
        metrics={"accuracy": accuracy, "tied": float(np.mean(preferred == 0.5))},
        confidence={"accuracy": wilson(accuracy, len(np.unique(images)))},
        chance={"accuracy": 0.5},
    )


def _row(example: Example) -> _Row:
    foil = example.metadata.get("foil")
    if not example.captions or not isinstance(foil, str):
        raise DataError(
            f"{example.key}: expected a caption, and the wrong one as `foil` in the metadata; scenes:binding has both"
        )
    return _Row(example.key, example.captions[0], foil, str(example.metadata.get("exchange", "")))
