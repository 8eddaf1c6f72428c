"""Features of labelled images: computed once, for probes of any number of examples."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.left_out import all_left_out
from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress
from diptych.embed.source_rows import count_reasons
from diptych.errors import DataError
from diptych.evaluation.metrics import Flags, Floats, Integers, mean_per_class, roc_auc
from diptych.evaluation.probes.log_losses import Likelihood, OneOf
from diptych.evaluation.probes.logistic_regression import Fit, LogisticRegression
from diptych.evaluation.probes.strength_sweep import Score
from diptych.evaluation.survey import EmbeddedRows, feature_rows
from diptych.evaluation.task_report import Outcomes, Scores
from diptych.evaluation.tasks import LabelFrom
from diptych.evaluation.zero_shot.answers import (
    Answers,
    answers,
    check_headline,
    outcomes_of,
    score_answers,
)
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import LabelledRows, survey_labels
from diptych.models.image_model import ImageModel

VALIDATION_SHARE = 0.2  # of each class, where no validation images are given


class Measured(NamedTuple):
    """What a fit does on test images; the fields are those of a report."""

    scores: Scores
    outcomes: Outcomes
    groups: Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class ProbeData(ABC):
    """Features of one dataset's images with what they show, be that one class each or several.

    features: (n, width), not of unit length. keys, positions: (n,), of the examples in the source called `data`.
    groups: (n,), equal for images that stay on one side of a split; empty where each is alone.
    skipped: images that could not be read, by reason. remarks: see `Report.remarks`.
    """

    labels_in: ClassVar[tuple[str, ...]]  # the fields that say what the images show, with a row an image

    data: str
    classes: tuple[str, ...]
    features: Floats
    keys: tuple[str, ...]
    positions: tuple[int, ...]
    skipped: Mapping[str, int]
    remarks: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    def only(self, rows: Integers) -> Self:
        """Return the images of those numbers (m,), in their order."""
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("features", *self.labels_in)}
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            positions=tuple(self.positions[row] for row in rows),
            groups=tuple(self.groups[row] for row in rows) if self.groups else (),
            **arrays,
        )

    def remarks_beside(self, train: "ProbeData") -> tuple[str, ...]:
        """Return these remarks, and those of the training images, and what of them was skipped, under their name.

        Images of one source that are on both sides are counted; what that source left out is said once.
        """
        left_out = all_left_out([train.skipped]).lines() if train.data != self.data else []
        told = (*train.remarks, *(f"left out {line}" for line in left_out))
        both = len({*self.keys} & {*train.keys}) if train.data == self.data else 0
        overlap = (f"{both:,} of {len(self):,} test images were trained on",) if both else ()
        return (*self.remarks, *(f"{train.data}: {remark}" for remark in told), *overlap)

    def joined(self, other: Self) -> Self:
        """Return these images, then others."""
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("features", *self.labels_in)
        }
        return replace(
            self, keys=self.keys + other.keys, positions=self.positions + other.positions, groups=(), **arrays
        )

    def parts(self, seed: int) -> tuple[Self, Self]:
        """Return images to fit, and those of `kept_out` to validate with."""
        kept = self.kept_out(seed)
        if not kept.any():
            raise DataError(
                f"{self.data}: one image a class leaves none to choose the regularisation with; give validation "
                "images, or measure few-shot with one shot"
            )
        return self.only(np.flatnonzero(~kept)), self.only(np.flatnonzero(kept))

    def logits(self, fit: Fit) -> Tensor:
        """Return, (n, classes) in float64 on the CPU, what a fit says of the images."""
        return fit.logits(torch.from_numpy(self.features).to(fit.weights.device))

    def regression(self, device: torch.device) -> LogisticRegression:
        """Return the regression of these images; DataError where a class lacks examples."""
        return LogisticRegression(torch.from_numpy(self.features).to(device), self.likelihood())

    @abstractmethod
    def likelihood(self) -> Likelihood:
        """Return what the images show, for a regression; DataError where a class lacks examples."""

    @abstractmethod
    def kept_out(self, seed: int) -> Flags:
        """Choose the `VALIDATION_SHARE`, (n,), that a strength is chosen with."""

    @abstractmethod
    def check(self, headline: str) -> None:
        """Raise SettingsError or DataError where that metric cannot be measured on these images."""

    @abstractmethod
    def score(self, fit: Fit, headline: str) -> Score:
        """Return how well a fit of other images does on these, for choosing between fits."""

    @abstractmethod
    def measured(self, fit: Fit, headline: str) -> Measured:
        """Return everything that a report says of a fit of other images."""


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures(ProbeData):
    """Features of images of one class each. target: (n,) places in `classes`."""

    labels_in = ("target",)

    target: Integers

    @classmethod
    def of(cls, data: str, labelled: LabelledRows, rows: EmbeddedRows) -> "LabelledFeatures":
        """Make one from features, of any network, of the rows that `survey_labels` found in `data`."""
        return cls(
            data=data,
            classes=labelled.classes.names,
            features=rows.vectors,
            target=labelled.target(rows.positions),
            keys=tuple(labelled.rows[position].key for position in rows.positions),
            positions=tuple(rows.positions),
            skipped=count_reasons([*labelled.skipped, *rows.skipped]),
            remarks=labelled.remarks,
        )

    def kept_out(self, seed: int) -> Flags:
        return held_out(self.target, VALIDATION_SHARE, seed, self.groups)

    def likelihood(self) -> OneOf:
        if len(self.classes) < 2:
            raise DataError(
                f"{self.data}: every image is of the class {self.classes[0]!r}; expected two or more"
            )
        counts = np.bincount(self.target, minlength=len(self.classes))
        if not counts.all():
            raise DataError(
                f"{self.data}: no image of the class {self.classes[int(counts.argmin())]!r} to learn from; expected "
                f"one or more of each of the {len(self.classes)} classes"
            )
        return OneOf(torch.from_numpy(self.target), len(self.classes))

    def check(self, headline: str) -> None:
        seen = {self.classes[place] for place in self.target.tolist()}
        check_headline(headline, len(self.classes), seen, self.data)

    def answers(self, fit: Fit) -> Answers:
        """Return what a fit says of the images."""
        constant = np.ones((len(self), 1), np.float32)
        weights = torch.cat([fit.weights, fit.intercept[:, None]], dim=1).T.float().cpu()
        return answers(np.concatenate([self.features, constant], axis=1), weights, self.target, scale=1.0)

    def score(self, fit: Fit, headline: str) -> Score:
        said = self.answers(fit)
        correct = said.ranks < 1
        match headline:
            case "mean_per_class":
                metric = mean_per_class(correct, self.target)
            case "mean_top1_top5":
                metric = float(np.mean(correct) + np.mean(said.ranks < 5)) / 2
            case "roc_auc":
                metric = roc_auc(said.margin, self.target == 1)
            case _:
                metric = float(np.mean(correct))
        loss = F.cross_entropy(self.logits(fit), torch.from_numpy(self.target))
        return Score(metric, -float(loss))

    def measured(self, fit: Fit, headline: str) -> Measured:
        said = self.answers(fit)
        outcomes = outcomes_of(said, headline, keys=self.keys, labels=self.classes, positions=self.positions)
        return Measured(score_answers(said, len(self.classes), headline), outcomes, {})


def labelled_features(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    labels: LabelSet | None = None,
    label_from: LabelFrom = "label",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> LabelledFeatures:
    """Compute the features of a source's images before the projection, with their classes.

    labels: the classes; every distinct one of the source when not given. Test images take those of the training
    images: `LabelSet.of(train.classes)`.

    Raises:
        DataError: no labels, one outside `labels`, or no readable image.
    """
    labelled = survey_labels(source, labels, label_from=label_from)
    rows = feature_rows(model, preprocess, source, labelled.rows, batch_size=batch_size, progress=progress)
    return LabelledFeatures.of(source.name, labelled, rows)


def held_out(target: Integers, share: float, seed: int, groups: Sequence[int] = ()) -> Flags:
    """Choose which of n examples to keep from a fit: `share` of each class, at least one, and never a class's only one.

    target: (n,) classes. groups: (n,), equal for examples that stay on one side; each is alone when not given. A class
    of one group keeps none; its smallest group is kept where no other brings it nearer to the share. Equal seeds keep
    equal examples.
    """
    kept = np.zeros(len(target), np.bool_)
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        if len(members) > 1:
            number = max(1, round(share * len(members)))
            order = shuffled(members, seed, int(label))
            kept[_whole_groups(order, number, groups) if len(groups) else order[:number]] = True
    return kept


def _whole_groups(order: Integers, number: int, groups: Sequence[int]) -> list[int]:
    """Return about `number` of the examples in `order`, by whole groups, never all of them."""
    together: dict[int, list[int]] = {}
    for row in order.tolist():
        together.setdefault(groups[row], []).append(row)
    taken: list[int] = []
    for rows in together.values():
        # Nearer to the number with it than without it.
        if len(rows) < 2 * (number - len(taken)) and len(taken) + len(rows) < len(order):
            taken += rows
    if not taken and len(together) > 1:
        taken = min(together.values(), key=len)
    return taken


def shuffled(members: Integers, seed: int, label: int) -> Integers:
    """Return the members of one class in an order of its own, whatever the other classes are."""
    order: Integers = np.random.default_rng((seed, label)).permutation(members)
    return order
