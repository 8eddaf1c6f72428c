"""LiT: a text tower learns to read a locked image tower (Zhai et al. 2021, "LiT: Zero-Shot Transfer with Locked-image
text Tuning")."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.models.image_model import ImageModel
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.contrastive import MATCHED, ClipTask
from diptych.training.encoding.encoders import Encoding
from diptych.training.encoding.kept_features import KeptFeatures


@dataclass(frozen=True, kw_only=True)
class LitSettings(ObjectiveSettings):
    """LiT has no settings of its own."""

    name: Literal["lit"] = "lit"


class LitTask(ClipTask):
    """CLIP's objective; the image tower is in evaluation mode and has no gradient.

    Without augmentation, an image's embedding is computed once and kept.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: LitSettings) -> None:
        super().__init__(model, encoding, settings)
        lock(model)
        self.kept = KeptFeatures() if encoding.is_fixed else None

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `ClipTask`."""
        with torch.no_grad():
            if self.kept is None:
                return super().image(batch, rows)
            return self.kept.of(batch, rows, super().image)


def lock(model: ImageModel) -> None:
    """Keep the image tower's weights and its running averages, whatever is trained beside it."""
    locked = [model.visual, *([model.image_head] if model.image_head is not None else [])]
    for part in locked:
        part.requires_grad_(False)
    model.frozen_parts = (*model.frozen_parts, *locked)
    model.train(model.training)


APPROACH = Approach(
    settings=LitSettings,
    task=LitTask,
    evaluations=("zero-shot", "labels"),
    right=MATCHED,
    has_negatives=True,
    chance_loss=math.log,
)
