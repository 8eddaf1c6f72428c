"""A small CLIP learns from a large one (CLIP-KD: Yang et al. 2023; TinyCLIP: Wu et al. 2023; open_clip)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.objectives.feature_distillation import (
    affinity_distillation,
    feature_distillation,
    interactive_distillation,
)
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.approach import Approach, TaughtSettings
from diptych.training.approaches.contrastive import MATCHED, OF_PAIRS, ClipTask
from diptych.training.encoding.encoders import Encoding
from diptych.training.encoding.features import unit
from diptych.training.encoding.teacher import Teacher
from diptych.training.optim.mixed_precision import autocast


@dataclass(frozen=True, kw_only=True)
class ClipDistillationSettings(TaughtSettings):
    """The weights of the parts of the loss, with the published names of the parts."""

    name: Literal["clip-distillation"] = "clip-distillation"
    # CLIP's own loss.
    contrastive_weight: float = 1.0
    # The squared distance of embeddings (CLIP-KD "FD": 2,000).
    feature_weight: float = 0.0
    # The teacher's similarities (TinyCLIP, open_clip: 1).
    affinity_weight: float = 0.0
    # One side against the teacher's other side (CLIP-KD "ICL": 1).
    interactive_weight: float = 0.0


class ClipDistillationTask(ClipTask):
    """CLIP's loss and up to three ways to learn from a teacher, each with its weight.

    The teacher sees the same views and texts. Its embedding of an image or a text travels beside the student's, as one
    row: (rows, student's width + teacher's width).
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: ClipDistillationSettings) -> None:
        super().__init__(model, encoding, settings)
        self.encoding = encoding
        self.weights = {
            "contrastive": settings.contrastive_weight,
            "feature": settings.feature_weight,
            "affinity": settings.affinity_weight,
            "interactive": settings.interactive_weight,
        }
        if not any(self.weights[name] for name in ("feature", "affinity", "interactive")):
            raise SettingsError(
                "[objective] clip-distillation: nothing is learned from the teacher; set feature_weight = 2000, "
                "affinity_weight = 1 or interactive_weight = 1"
            )
        self.teacher = Teacher(settings.teacher, settings.name, model)
        self._check_teacher(model)

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See the class."""
        mine = super().image(batch, rows)
        views = self.images.views(batch, rows)
        return self._beside(mine, lambda: self.teacher.model.encode_image(self.teacher.pixels(views)))

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See the class."""
        mine = super().text(batch, rows)
        return self._beside(mine, lambda: self.teacher.model.encode_text(self.encoding.tokens(batch, rows)))

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. Only CLIP's own part knows of `groups`."""
        (image, taught_image), (text, taught_text) = self._apart(left), self._apart(right)
        scale, teachers = self.model.logit_scale.exp(), self.teacher.model.logit_scale.exp()
        student, teacher = Pairs.gathered(image, text), Pairs.gathered(taught_image, taught_text)
        parts: dict[str, Callable[[], tuple[Tensor, int]]] = {
            "contrastive": lambda: super(ClipDistillationTask, self).loss(image, text, groups),
            "feature": lambda: feature_distillation(student, teacher),
            "affinity": lambda: affinity_distillation(student, teacher, scale, teachers),
            "interactive": lambda: interactive_distillation(student, teacher, scale),
        }
        total = left.new_zeros(())
        for name, weight in self.weights.items():
            if weight:
                total = total + weight * parts[name]()[0]
        return total, len(left)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the student's right answers, as for CLIP."""
        return super().correct(self._apart(left)[0], self._apart(right)[0], groups)

    def _beside(self, mine: Tensor, encode: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad(), autocast(mine.device.type, self.encoding.precision):
            taught = encode()
        return torch.cat([mine, unit(taught).to(mine.dtype)], dim=1)

    def _apart(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        width = self.model.architecture.embed_dim
        return rows[:, :width], rows[:, width:]

    def _check_teacher(self, model: ImageModel) -> None:
        teacher, place = self.teacher.model, f"[objective] teacher {self.teacher.place!r}"
        if not teacher.embeds_texts:
            raise SettingsError(f"{place} embeds no texts; name a CLIP")
        if teacher.context_length < model.context_length:
            raise SettingsError(
                f"{place} reads {teacher.context_length} tokens, and the student {model.context_length}; set "
                f"[model.architecture] text = {{ context_length = {teacher.context_length}, ... }}"
            )
        found, wanted = model.architecture.embed_dim, teacher.architecture.embed_dim
        if found != wanted and (self.weights["feature"] or self.weights["interactive"]):
            raise SettingsError(
                f"{place} has embeddings of {wanted} dimensions, and the student of {found}: only their similarities "
                f"can be compared (affinity_weight); for the others set [model.architecture] embed_dim = {wanted}"
            )


APPROACH = Approach(
    settings=ClipDistillationSettings,
    task=ClipDistillationTask,
    evaluations=OF_PAIRS,
    right=MATCHED,
    has_negatives=True,
)
