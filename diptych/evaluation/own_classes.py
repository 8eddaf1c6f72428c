"""A model that was trained with labels, at its own classes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diptych.data.sources import Source
from diptych.embed import Encode, Preprocessing, Progress, Vectors
from diptych.errors import SettingsError
from diptych.evaluation.answers import Headline
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.logistic_regression import Fit
from diptych.evaluation.probe_data import LabelledFeatures
from diptych.evaluation.report import Report
from diptych.evaluation.survey import encoded_rows
from diptych.evaluation.zero_shot import LabelFrom, survey_labels
from diptych.models.clip import CLIP
from diptych.models.label_head import LabelHead


def evaluate_own_classes(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    *,
    model_name: str,
    label_from: LabelFrom = "label",
    headline: Headline = "top1",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """The metrics of zero-shot classification, of the classes that the model has learned from labels.

    The parameters, intervals and `chance` are those of `evaluate_zero_shot`.

    Raises:
        SettingsError: the model has not been trained with labels.
        DataError: a label that is none of the model's classes, or no readable image.
    """
    head = model.text
    if not isinstance(head, LabelHead):
        raise SettingsError(
            f"{model_name} was not trained with labels and has no classes of its own; give the classes' names with "
            "`diptych evaluate zero-shot`, or labelled pictures with `diptych evaluate linear-probe`"
        )
    labelled = survey_labels(source, LabelSet.of(head.classes), label_from=label_from)
    rows = encoded_rows(
        _hidden_features(model, head),
        preprocess,
        source,
        labelled.rows,
        device=model.logit_scale.device,
        batch_size=batch_size,
        progress=progress,
    )
    data = LabelledFeatures.of(source.name, labelled, rows)
    data.check(headline)
    # The last layer is a logistic regression that is there already.
    fit = Fit(
        weights=head.weight.detach().double(),
        intercept=head.bias.detach().double(),
        inverse_strength=math.inf,
        iterations=0,
        products=0,
        gradient=0.0,
        converged=True,
    )
    measured = data.measured(fit, headline)
    return Report(
        task="labels",
        model=model_name,
        data=source.name,
        scores=measured.scores,
        groups=measured.groups,
        skipped=data.skipped,
        details={"headline": headline, "classes": len(head.classes)},
        outcomes=measured.outcomes,
    )


def _hidden_features(model: CLIP, head: LabelHead) -> Encode:
    def encode(pixels: Sequence[Tensor]) -> Vectors:
        with torch.inference_mode():
            images = torch.stack(list(pixels)).to(model.logit_scale.device)
            features = head.hidden(model.image_features(images).to(head.weight.dtype))
            vectors: Vectors = features.float().cpu().numpy()
            return vectors

    return encode
