"""SimCLRv2's third step: a student learns a fine-tuned teacher's probabilities of images without labels."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.objectives.distillation import distillation, distillation_with_labels
from diptych.training.approaches.approach import Approach, TaughtSettings
from diptych.training.approaches.supervised import LabelsTask, loss_of_classes
from diptych.training.encoding.encoders import Encoding
from diptych.training.encoding.features import of_kind, wide
from diptych.training.encoding.teacher import Teacher
from diptych.training.optim.mixed_precision import autocast


@dataclass(frozen=True, kw_only=True)
class LabelDistillationSettings(TaughtSettings):
    """How a student learns a teacher's probabilities."""

    name: Literal["label-distillation"] = "label-distillation"
    # What logits are divided by (SimCLRv2: 0.1 for a student of the teacher's size, 1 for a smaller one).
    temperature: float = 0.1
    # Share of the known labels in the loss, 0..1.
    label_weight: float = 0.0


class LabelDistillationTask(LabelsTask):
    """Both see the same view of an image; what the teacher says travels beside the student's features, as one row."""

    def __init__(self, model: ImageModel, encoding: Encoding, settings: LabelDistillationSettings) -> None:
        super().__init__(model, encoding, settings)
        self.settings, self.precision = settings, encoding.precision
        self.teacher = Teacher(settings.teacher, settings.name, model)
        self.teachers_head = of_kind(
            self.teacher.model.text, LabelHead, "label-distillation: the teacher", "text = { classes = [] }"
        )
        if self.teachers_head.classes != self.head.classes:
            raise SettingsError(
                f"[objective] teacher {self.teacher.place!r} tells {len(self.teachers_head.classes)} classes apart, "
                f"and the student {len(self.head.classes)} others; set [model.architecture] text = {{ classes = [] }} "
                "to have the teacher's"
            )

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the student's features and the teacher's logits: (len(rows), width + classes)."""
        features = super().image(batch, rows)
        views = self.images.views(batch, rows)
        with torch.no_grad(), autocast(views.device.type, self.precision):
            taught = wide(self.teachers_head(self.teacher.model.visual.features(self.teacher.pixels(views))))
        return torch.cat([features, taught.to(features.dtype)], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. Known labels have a part in it where the recipe gives them a weight."""
        classes = len(self.head.classes)
        features, taught = left[:, :-classes], left[:, -classes:]
        logits, temperature = self.logits(features), self.settings.temperature
        if not self.settings.label_weight:
            return distillation(logits, taught, temperature)
        return distillation_with_labels(
            logits, taught, right[:, 0], temperature, 1 - self.settings.label_weight
        )


def _first_loss(settings: LabelDistillationSettings, _: int, architecture: Architecture) -> float | None:
    """Return the loss of giving all classes one probability, as a new head does, whatever the teacher says."""
    share, labels = settings.label_weight, loss_of_classes(architecture)
    return None if labels is None else (share + (1 - share) * settings.temperature**2) * labels


APPROACH = Approach(
    settings=LabelDistillationSettings,
    task=LabelDistillationTask,
    evaluations=("linear-probe", "labels"),
    right="the class of an image",
    has_negatives=False,
    reads_texts=False,
    needs_captions=False,
    drops_patches=False,
    first_loss=_first_loss,
)
