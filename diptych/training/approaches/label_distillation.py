"""SimCLRv2's third step: a student learns a fine-tuned teacher's probabilities of pictures without labels."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.objectives.distillation import distillation, distillation_with_labels
from diptych.training.approaches.sides import of_kind, wide
from diptych.training.approaches.supervised import LabelsTask
from diptych.training.approaches.teacher import Teacher
from diptych.training.optim.mixed_precision import autocast
from diptych.training.settings import Recipe


class LabelDistillationTask(LabelsTask):
    """Both see the same view of a picture; what the teacher says travels beside the student's features, as one row."""

    needs_captions = False

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.temperature = recipe.objective.temperature
        self.label_weight = recipe.objective.label_weight
        self.teacher = Teacher(recipe.objective.teacher, "label-distillation", model)
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
        """The student's features and the teacher's logits: (len(rows), width + classes)."""
        features = super().image(batch, rows)
        view = self.seen(batch.canvas[rows], batch.mirrored[rows], batch.chance[rows])
        with torch.no_grad(), autocast(view.device.type, self.precision):
            taught = wide(self.teachers_head(self.teacher.model.visual.features(self.teacher.pixels(view))))
        return torch.cat([features, taught.to(features.dtype)], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. Known labels have a part in it where the recipe gives them a weight."""
        classes = len(self.head.classes)
        features, taught = left[:, :-classes], left[:, -classes:]
        logits = self.logits(features)
        if not self.label_weight:
            return distillation(logits, taught, self.temperature)
        return distillation_with_labels(logits, taught, right[:, 0], self.temperature, 1 - self.label_weight)
