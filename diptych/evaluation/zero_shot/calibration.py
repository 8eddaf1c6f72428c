"""Probabilities that mean what they say, and a similarity below which an image shows none of the classes.

A temperature divides a model's logits so that they fit labelled images best (Guo et al. 2017, "On Calibration of
Modern Neural Networks", section 4.2); it changes no answer. The threshold is one of the best class's similarity: a
probability only compares the classes with one another, and is high for the best of bad ones too.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diptych import config
from diptych.atomic import write_text
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.data.subsets.same_images import same_images
from diptych.embed.encode import Progress
from diptych.errors import DataError, SettingsError
from diptych.evaluation.metrics import Floats, Integers, roc_auc
from diptych.evaluation.survey import embed_rows
from diptych.evaluation.tasks import LabelFrom
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import (
    BuildClassifier,
    classifier,
    logit_scale,
    survey_labels,
)
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from diptych.evaluation.zero_shot.reliability import bins_of_equal_width, expected_calibration_error
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint

Doubles = NDArray[np.float64]

KEEP = 0.95  # of the labelled images, where there are no others to tell them from
# Beyond these the labelled images do not say how sure to be: all are named rightly, or as badly as by chance.
TEMPERATURES = (0.1, 10.0)
_FORMAT_VERSION = 1
_HALVINGS = 40  # of a range of ln 100: to 4e-12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found for one model, one set of classes and one set of templates, as it stands in a file.

    measured: `count`, and `log_loss` and `calibration_error` (15 bins of equal width) before and after; the values
    after are of each half of the images with the temperature that the other half asks for, so that none is measured
    on what chose it. `top1` is the accuracy, `kept` the share of labelled images that reach the threshold,
    `top1_kept` the accuracy on those. With images of other things: `none_count`, `turned_away` (their share below the
    threshold) and `none_roc_auc`, how well the similarity separates both kinds at any threshold.
    """

    model: str  # its name, for messages
    fingerprint: str
    labels: dict[str, tuple[str, ...]]  # phrases by name, in the order of the classifier's columns
    templates: tuple[str, ...]
    temperature: float  # what the model's own logits are divided by
    threshold: float  # the least similarity, -1..1, of an image that shows one of the classes
    measured: dict[str, float]  # on the images that it was fitted to
    format_version: int = _FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != _FORMAT_VERSION:
            raise SettingsError(
                f"format_version {self.format_version}: this version reads {_FORMAT_VERSION}; "
                "calibrate again with diptych evaluate calibrate"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SettingsError(f"temperature {self.temperature}: expected a number above 0")
        if not -1 <= self.threshold <= 1:
            raise SettingsError(f"threshold {self.threshold}: expected a cosine, -1..1")

    @property
    def label_set(self) -> LabelSet:
        """Return the classes with their templates."""
        return LabelSet(tuple(self.labels), tuple(self.labels.values()), self.templates)

    def require(self, model: ImageModel, preprocess: Preprocess) -> None:
        """Check that this is the model that was calibrated, in whatever precision.

        Raises:
            SettingsError: it is another.
        """
        if fingerprint(model, preprocess) != self.fingerprint:
            raise SettingsError(
                f"the calibration belongs to another model, {self.model}; give that one with --model, "
                "or calibrate this one with diptych evaluate calibrate"
            )


def calibrate(
    model: ImageModel,
    preprocess: Preprocess,
    source: Source,
    *,
    model_name: str,
    none_of_these: Source | None = None,
    keep: float | None = None,
    labels: LabelSet | None = None,
    templates: Sequence[str] | None = None,
    label_from: LabelFrom = "label",
    build: BuildClassifier = classifier,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Calibration:
    """Find the temperature and the threshold that suit labelled images like those to come.

    none_of_these: images of other things, whose labels are not read; the threshold is then where most of both kinds are
    on their side (`threshold_between`). keep: the share of labelled images that the threshold lets pass; 0.95 when
    neither is given. labels, templates, label_from, build: as for `evaluate_zero_shot`.

    Raises:
        DataError: fewer than two labelled images, or as `evaluate_zero_shot` says.
        SettingsError: fewer than two classes; `keep` is not within 0..1.
    """
    if keep is not None and not 0 < keep <= 1:
        raise SettingsError(f"keep {keep}: expected a share above 0, at most 1")
    labelled = survey_labels(source, labels, label_from=label_from)
    classes = labelled.classes
    if len(classes.names) < 2:
        raise SettingsError(f"{source.name}: one class ({classes.names[0]!r}) leaves nothing to calibrate")
    words = tuple(templates or classes.templates or TEMPLATES["plain"])
    weights = build(model, classes.phrases, words).numpy()

    def similarities(of: Source, positions: Sequence[int]) -> tuple[Floats, list[int]]:
        images = embed_rows(model, preprocess, of, positions, batch_size=batch_size, progress=progress)
        return images.vectors @ weights, images.positions

    similarity, positions = similarities(source, list(labelled.rows))
    if len(positions) < 2:
        raise DataError(f"{source.name}: one image that can be read; calibrating needs two, better hundreds")
    logits, target = logit_scale(model) * similarity, labelled.target(positions)
    best = similarity.max(axis=1)
    measured = {"count": float(len(target))} | _before_and_after(logits, target)
    others = None
    if none_of_these is not None:
        others = similarities(none_of_these, np.unique(same_images(none_of_these)).tolist())[0].max(axis=1)
    threshold = _threshold(best, others, keep)
    if others is not None:
        measured |= _turned_away(best, others, threshold)
    return Calibration(
        model=model_name,
        fingerprint=fingerprint(model, preprocess),
        labels=dict(zip(classes.names, classes.phrases, strict=True)),
        templates=words,
        temperature=fit_temperature(logits, target),
        threshold=threshold,
        measured=measured | _kept(similarity, target, threshold),
    )


def _threshold(known: Floats, others: Floats | None, keep: float | None) -> float:
    """Return the threshold that lets `keep` of the known scores pass; that which tells both kinds apart without it."""
    if others is not None and keep is None:
        return threshold_between(known, others)
    return threshold_keeping(known, KEEP if keep is None else keep)


def _turned_away(known: Floats, others: Floats, threshold: float) -> dict[str, float]:
    both = np.concatenate([known, others])
    return {
        "none_count": float(len(others)),
        "turned_away": float(np.mean(others < threshold)),
        "none_roc_auc": roc_auc(both, np.arange(len(both)) < len(known)),
    }


def fit_temperature(logits: Floats, target: Integers) -> float:
    """Find the temperature T within `TEMPERATURES` for which softmax(logits / T) has the least mean log loss.

    logits: (n, classes); target: (n,). The loss is convex in 1 / T. Its derivative, the mean over examples of the
    expected logit less the right one's, rises with 1 / T, so its zero is found by halving a range of ln T.
    """
    right = np.take_along_axis(logits, target[:, None], axis=1)[:, 0].astype(np.float64)

    def too_sharp(temperature: float) -> bool:
        expected = (_softmax(logits / temperature) * logits).sum(axis=1)
        return bool(np.mean(expected - right) > 0)

    low, high = map(math.log, TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_sharp(math.exp(middle)) else (low, middle)
    return math.exp((low + high) / 2)


def log_loss(logits: Floats, target: Integers) -> float:
    """Return the mean of -ln p of the right class, for logits (n, classes) and target (n,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    right = np.take_along_axis(shifted, target[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - right))


def threshold_keeping(scores: Floats, share: float) -> float:
    """Return the highest threshold that at least `share` of the scores (n,) reach.

    It lies halfway to the next lower score, so that rounding elsewhere does not turn the last one away.
    """
    ranked = np.sort(scores)[::-1].astype(np.float64)
    kept = math.ceil(share * len(ranked))
    return _halfway(ranked[kept:], ranked[kept - 1])


def threshold_between(known: Floats, others: Floats) -> float:
    """Return the threshold with the largest share of `known` scores that reach it less that of `others` (Youden 1950).

    That is also the least mean of both kinds' errors, however many there are of each. Of equally good ones, the
    lowest. Halfway to the next lower score.
    """
    levels = np.unique(np.concatenate([known, others]))
    missed = np.searchsorted(np.sort(known), levels, side="left") / len(known)
    turned_away = np.searchsorted(np.sort(others), levels, side="left") / len(others)
    best = int(np.argmax(turned_away - missed))
    return _halfway(levels[:best].astype(np.float64), float(levels[best]))


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON; the file appears only when whole."""
    text = json.dumps({"kind": "calibration", **config.plain(calibration)}, indent=2, ensure_ascii=False)
    write_text(path, f"{text}\n")


def read_calibration(path: str | Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        SettingsError: there is no such file, or it is something else.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); make one with diptych evaluate calibrate"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{file}: not JSON ({error}); {_EXPECTED}") from None
    if not isinstance(content, dict) or content.pop("kind", None) != "calibration":
        raise SettingsError(f"{file}: not a calibration; {_EXPECTED}")
    return config.build(Calibration, content, str(file))


_EXPECTED = "expected a file that diptych evaluate calibrate wrote"


def _halfway(lower: Doubles, level: float) -> float:
    """Return the middle between `level` and the highest of `lower`; `level` itself where there is none."""
    below = lower[lower < level]
    return float((below.max() + level) / 2) if len(below) else float(level)


def _kept(similarity: Floats, target: Integers, threshold: float) -> dict[str, float]:
    kept = similarity.max(axis=1) >= threshold
    right = similarity.argmax(axis=1) == target
    # Both ways to a threshold keep one image at least.
    return {
        "top1": float(np.mean(right)),
        "kept": float(np.mean(kept)),
        "top1_kept": float(np.mean(right[kept])),
    }


def _before_and_after(logits: Floats, target: Integers) -> dict[str, float]:
    order = np.random.default_rng(0).permutation(len(target))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    cooled = np.empty_like(logits)
    for mine, others in (halves, halves[::-1]):
        cooled[mine] = logits[mine] / fit_temperature(logits[others], target[others])
    return {
        "log_loss_before": log_loss(logits, target),
        "log_loss": log_loss(cooled, target),
        "calibration_error_before": _calibration_error(logits, target),
        "calibration_error": _calibration_error(cooled, target),
    }


def _calibration_error(logits: Floats, target: Integers) -> float:
    probability = _softmax(logits).max(axis=1)
    return expected_calibration_error(
        bins_of_equal_width(probability.astype(np.float32), logits.argmax(axis=1) == target)
    )


def _softmax(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = odds / odds.sum(axis=1, keepdims=True)
    return probabilities
