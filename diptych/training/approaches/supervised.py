"""Learning from labels: supervised pre-training of ViT, and fine-tuning (Dosovitskiy et al. 2020; Chen et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.models.architectures import Architecture
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.models.layers.projection_head import FeatureTower
from diptych.objectives.cross_entropy import label_likelihood
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder
from diptych.training.encoding.features import of_kind


@dataclass(frozen=True, kw_only=True)
class LabelsSettings(ObjectiveSettings):
    """The target of the labels."""

    name: Literal["labels"] = "labels"
    # Share of the target that is spread over all classes, 0..1.
    label_smoothing: float = 0.0


class LabelsTask(Task):
    """Which class an image is of.

    The tower ends before its projection. The head belongs to no tower and sees the rows of every process at once, so
    that the batch norms of its hidden layers do not depend on how the batch was cut.
    """

    def __init__(
        self, model: ImageModel, encoding: Encoding, settings: ObjectiveSettings, smoothing: float = 0.0
    ) -> None:
        self.head = of_kind(model.text, LabelHead, settings.name, "text = { classes = [] }")
        self.images = ImageEncoder(model, encoding, FeatureTower(model.visual))
        super().__init__(model, {"image": self.images})
        self.smoothing = smoothing
        self._logits: Tensor | None = None  # of the last loss, to count right answers by

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the image tower's features before its projection, (len(rows), width)."""
        return self.images.encode(batch, rows)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the classes of those rows, (len(rows), 1), -1 for those that are not known."""
        return batch.tokens[rows, :1].long()

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the count is that of the rows whose class is known."""
        return label_likelihood(self.logits(left), right[:, 0], self.smoothing)

    def logits(self, features: Tensor) -> Tensor:
        """Return (rows, classes), kept for `correct`. features: (rows, width), this process's."""
        logits: Tensor = self.head(features)
        self._logits = logits.detach()
        return logits

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the images whose likeliest class is theirs, among those whose class is known."""
        assert self._logits is not None
        known = right[:, 0] >= 0
        found = self._logits.argmax(dim=1) == right[:, 0]
        return (found & known).sum(), int(known.sum())


def loss_of_classes(architecture: Architecture) -> float | None:
    """Return the loss of giving all classes one probability; None where the data have still to give the classes."""
    head = architecture.label_head
    return math.log(len(head.classes)) if head is not None and head.classes else None


APPROACH = Approach(
    settings=LabelsSettings,
    task=lambda model, encoding, settings: LabelsTask(model, encoding, settings, settings.label_smoothing),
    evaluations=("labels", "linear-probe"),
    right="the class of an image",
    has_negatives=False,
    reads_texts=False,
    drops_patches=False,
    first_loss=lambda _, __, architecture: loss_of_classes(architecture),
)
