"""Fine-tuning on labels: a linear classifier on a CLIP's image tower (Wortsman et al. 2022, section 3)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diptych.data.batch import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.nonlinear_head import HeadedTower
from diptych.models.layers.projection_head import FeatureTower
from diptych.objectives.cross_entropy import label_likelihood
from diptych.objectives.several_labels import several_labels
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder
from diptych.training.encoding.kept_features import KeptFeatures


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(ObjectiveSettings):
    """The target of the labels."""

    name: Literal["classifier"] = "classifier"
    # Share of the target that is spread over all classes, 0..1.
    label_smoothing: float = 0.0


class ClassifierTask(Task):
    """Which class an image is of, or which classes.

    The classifier belongs to no tower. Where the tower is locked and nothing is augmented, its features are kept.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: ClassifierSettings) -> None:
        if model.classifier is None:
            raise SettingsError(
                "[objective] classifier: the model that the run starts from has no classes; add "
                "[finetune] with a method, or start from a model that `diptych finetune` made"
            )
        self.classifier = model.classifier
        self.smoothing = settings.label_smoothing
        tower: nn.Module = model.visual
        if self.classifier.reads == "features":
            tower = FeatureTower(model.visual)
        elif model.image_head is not None:
            tower = HeadedTower(model.visual, model.image_head)
        self.images = ImageEncoder(model, encoding, tower)
        super().__init__(model, {"image": self.images})
        learns = any(value.requires_grad for value in tower.parameters())
        self.kept = KeptFeatures() if encoding.is_fixed and not learns else None
        self._logits: Tensor | None = None  # of the last loss, to count right answers by

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return what the classifier reads, (len(rows), width), not of unit length."""
        if self.kept is None:
            return self.images.encode(batch, rows)
        return self.kept.of(batch, rows, self.images.encode)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the classes of those rows: their indices, (len(rows), 1); or 0 and 1, (len(rows), classes)."""
        return batch.tokens[rows].long()

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        logits = self.classifier(left)
        self._logits = logits.detach()
        if self.classifier.several:
            return several_labels(logits, right)
        return label_likelihood(logits, right[:, 0], self.smoothing)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the images whose likeliest class is theirs; of several classes, the images that are right in all."""
        assert self._logits is not None
        if self.classifier.several:
            return ((self._logits > 0) == right.bool()).all(dim=1).sum(), len(right)
        return (self._logits.argmax(dim=1) == right[:, 0]).sum(), len(right)


APPROACH = Approach(
    settings=ClassifierSettings,
    task=ClassifierTask,
    evaluations=("labels", "zero-shot"),
    right="the class of an image, or all of its classes",
    has_negatives=False,
    reads_texts=False,
    trains_classifier=True,
)
