"""Features of images that show several classes, or none (VOC 2007), for a linear probe.

The probe is a regression for each class against the rest, all of one strength, which is chosen by `map11`.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from diptych.data.sources.opening import Source
from diptych.embed.encode import Preprocessing, Progress
from diptych.embed.source_rows import count_reasons
from diptych.errors import DataError, SettingsError
from diptych.evaluation.metrics import Flags, map11
from diptych.evaluation.probes.log_losses import AnyOf
from diptych.evaluation.probes.logistic_regression import Fit
from diptych.evaluation.probes.probe_data import VALIDATION_SHARE, Measured, ProbeData
from diptych.evaluation.probes.strength_sweep import Score
from diptych.evaluation.survey import feature_rows
from diptych.evaluation.task_report import Outcomes
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.multi_label import score_classes, score_rankings, survey_several_labels
from diptych.models.image_model import ImageModel


@dataclass(frozen=True, kw_only=True)
class MultiLabelFeatures(ProbeData):
    """Features of images of any number of classes. relevant, judged: (n, classes), as `metrics.map11` takes them."""

    labels_in = ("relevant", "judged")

    relevant: Flags
    judged: Flags

    def kept_out(self, seed: int) -> Flags:
        """Draw from all images alike: one of several classes has no one class to be drawn within."""
        kept = np.zeros(len(self), np.bool_)
        kept[np.random.default_rng(seed).permutation(len(self))[: round(VALIDATION_SHARE * len(self))]] = True
        return kept

    def likelihood(self) -> AnyOf:
        shown = (self.relevant & self.judged).sum(axis=0)
        judged = self.judged.sum(axis=0)
        for name, some, all_of_them in zip(self.classes, shown, judged, strict=True):
            if some in (0, all_of_them):
                raise DataError(
                    f"{self.data}: {'every' if some else 'no'} image to learn from shows the class {name!r}; expected "
                    "some that do and some that do not, also without those kept for validation"
                )
        return AnyOf(torch.from_numpy(self.relevant), torch.from_numpy(self.judged))

    def check(self, headline: str) -> None:
        if headline != "map11":
            raise SettingsError(f"metric {headline!r}: images of several classes are measured by map11")

    def score(self, fit: Fit, headline: str) -> Score:
        logits = self.logits(fit)
        each = F.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(self.relevant).to(logits.dtype), reduction="none"
        )
        return Score(
            map11(logits.numpy(), self.relevant, self.judged),
            -float(each[torch.from_numpy(self.judged)].sum() / len(self)),
        )

    def measured(self, fit: Fit, headline: str) -> Measured:
        logits = self.logits(fit).float().numpy()
        right = np.take_along_axis(self.relevant, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
        outcomes = Outcomes(
            keys=self.keys, scores={"top1": right.astype(np.float32)}, positions=self.positions
        )
        return Measured(
            score_rankings(logits, self.relevant, self.judged, right),
            outcomes,
            score_classes(logits, self.relevant, self.judged, self.classes),
        )


def multi_label_features(
    model: ImageModel,
    preprocess: Preprocessing,
    source: Source,
    *,
    labels: LabelSet | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> MultiLabelFeatures:
    """Compute features of a source's images before the projection, with their classes where `evaluate_multi_label` has
    them.

    labels: the classes; every one that an image of the source has when not given.

    Raises:
        DataError: as `evaluate_multi_label` does.
    """
    labelled = survey_several_labels(source, labels)
    images = feature_rows(model, preprocess, source, labelled.rows, batch_size=batch_size, progress=progress)
    return MultiLabelFeatures(
        data=source.name,
        classes=labelled.classes.names,
        features=images.vectors,
        relevant=labelled.relevant(images.positions),
        judged=labelled.judged(images.positions),
        keys=labelled.keys(images.positions),
        positions=tuple(images.positions),
        skipped=count_reasons([*labelled.skipped, *images.skipped]),
        remarks=labelled.remarks,
    )
