"""Fine-tuning on labels: a linear classifier on a CLIP's image tower (Wortsman et al. 2022, section 3)."""

import torch
from torch import Tensor, nn

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.nonlinear_head import HeadedTower
from diptych.models.layers.projection_head import FeatureTower
from diptych.objectives.cross_entropy import label_likelihood
from diptych.objectives.several_labels import several_labels
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.kept_features import KeptFeatures, may_keep
from diptych.training.settings import Recipe


class ClassifierTask(PictureTask):
    """Which class an image is of, or which classes.

    The classifier belongs to no tower. Where the tower is locked and nothing is augmented, its features are kept.
    """

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        if model.classifier is None:
            raise SettingsError(
                "[objective] classifier: the model that the run starts from has no classes; add "
                "[finetune] with a method, or start from a model that `diptych finetune` made"
            )
        self.classifier = model.classifier
        self.smoothing = recipe.objective.label_smoothing
        tower: nn.Module = model.visual
        if self.classifier.reads == "features":
            tower = FeatureTower(model.visual)
        elif model.image_head is not None:
            tower = HeadedTower(model.visual, model.image_head)
        super().__init__(model, preprocess, recipe, {"image": tower})
        learns = any(value.requires_grad for value in tower.parameters())
        self.kept = KeptFeatures() if may_keep(recipe) and not learns else None
        self._logits: Tensor | None = None  # of the last loss, to count right answers by

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`: what the classifier reads, (len(rows), width), not of unit length."""
        if self.kept is None:
            return super().image(batch, rows)
        return self.kept.of(batch, rows, lambda new: super(ClassifierTask, self).image(batch, new))

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The classes of those rows: their numbers, (len(rows), 1); or 0 and 1, (len(rows), classes)."""
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
        """The images whose likeliest class is theirs; of several, those whose classes are the likelier half each."""
        assert self._logits is not None
        if self.classifier.several:
            return ((self._logits > 0) == right.bool()).all(dim=1).sum(), len(right)
        return (self._logits.argmax(dim=1) == right[:, 0]).sum(), len(right)
