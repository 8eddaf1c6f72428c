"""A model that was trained with labels, at its own classes."""

import math

import numpy as np

from diptych.data.sources.opening import Source
from diptych.data.subsets.labelled import classes_of
from diptych.embed.encode import Preprocessing, Progress
from diptych.embed.source_rows import count_reasons
from diptych.evaluation.metrics import map11, map11_interval, wilson
from diptych.evaluation.probes.logistic_regression import Fit
from diptych.evaluation.probes.probe_data import LabelledFeatures
from diptych.evaluation.repeated_images import count_remark, rows_of_images
from diptych.evaluation.survey import Survey, feature_rows, survey
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.tasks import Headline, LabelFrom
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import check_labels, survey_labels
from diptych.models.capabilities import ClassHead, lacks
from diptych.models.image_model import ImageModel


def evaluate_own_classes(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    label_from: LabelFrom = "label",
    headline: Headline = "top1",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Measure a model at the classes that it has learned from labels, by the metrics of zero-shot classification.

    The parameters, intervals and `chance` are those of `evaluate_zero_shot`.

    Raises:
        SettingsError: the model has not been trained with labels, or with several of each image: these have
            `evaluate_several_classes`.
        DataError: a label that is none of the model's classes, or no readable image.
    """
    head = model.class_head
    if head is None:
        raise lacks(model, "has classes", model_name)
    if head.several:
        return evaluate_several_classes(
            model, preprocess, source, model_name=model_name, batch_size=batch_size, progress=progress
        )
    labelled = survey_labels(source, LabelSet.of(head.classes), label_from=label_from)
    rows = feature_rows(
        model,
        preprocess,
        source,
        labelled.rows,
        features=model.class_features,
        batch_size=batch_size,
        progress=progress,
    )
    data = LabelledFeatures.of(source.name, labelled, rows)
    data.check(headline)
    measured = data.measured(_fit_of(head), headline)
    return Report(
        task="labels",
        model=model_name,
        data=source.name,
        scores=measured.scores,
        groups=measured.groups,
        skipped=data.skipped,
        remarks=data.remarks,
        details={"headline": headline, "classes": len(head.classes)},
        outcomes=measured.outcomes,
    )


def _fit_of(head: ClassHead) -> Fit:
    """Return the last layer as what it is: a logistic regression that is there already."""
    return Fit(
        weights=head.weight.detach().double(),
        intercept=head.bias.detach().double(),
        inverse_strength=math.inf,
        iterations=0,
        products=0,
        gradient=0.0,
        converged=True,
    )


def evaluate_several_classes(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Measure a model that says yes or no to each of its classes.

    An image has the classes of all rows that show it. `map11` is as `evaluate_multi_label` has it; `exact` is the share
    of images for which every class is right, at a probability of a half.
    """
    head = model.class_head
    if head is None:
        raise lacks(model, "has classes", model_name)
    rows = survey(source, lambda example: (example.key, classes_of(example)))
    check_labels(
        ((key, name) for key, names in rows.picked.values() for name in names),
        LabelSet.of(head.classes),
        source.name,
    )
    shown = _shown(rows)
    images = feature_rows(
        model,
        preprocess,
        source,
        shown,
        features=model.class_features,
        batch_size=batch_size,
        progress=progress,
    )
    relevant = np.array([[name in shown[position] for name in head.classes] for position in images.positions])
    weight, bias = (value.detach().float().cpu().numpy() for value in (head.weight, head.bias))
    logits = images.vectors @ weight.T + bias
    exact = ((logits > 0) == relevant).all(axis=1)
    share = float(exact.mean())
    return Report(
        task="labels",
        model=model_name,
        data=source.name,
        scores=Scores(
            count=len(relevant),
            metrics={"map11": map11(logits, relevant), "exact": share},
            confidence={"map11": map11_interval(logits, relevant), "exact": wilson(share, len(relevant))},
            chance={"map11": map11(np.zeros_like(logits), relevant)},
        ),
        skipped=count_reasons([*rows.skipped, *images.skipped]),
        remarks=count_remark(rows),
        details={"headline": "map11", "classes": len(head.classes)},
        outcomes=Outcomes(
            keys=tuple(rows.picked[position][0] for position in images.positions),
            scores={"exact": exact.astype(np.float32)},
            positions=tuple(images.positions),
        ),
    )


def _shown(rows: Survey[tuple[str, tuple[str, ...]]]) -> dict[int, set[str]]:
    """Return the classes of each image, by its first row: those of all rows that show it."""
    return {
        first: {name for position in positions for name in rows.picked[position][1]}
        for first, positions in rows_of_images(rows).items()
    }
