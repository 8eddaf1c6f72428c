"""Learning from labels: supervised pre-training of ViT, and fine-tuning (Dosovitskiy et al. 2020; Chen et al. 2020)."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.models.layers.projection_head import FeatureTower
from diptych.objectives.cross_entropy import label_likelihood
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind
from diptych.training.settings import Recipe


class LabelsTask(PictureTask):
    """Which class an image is of.

    The tower ends before its projection. The head belongs to no tower and sees the rows of every process at once, so
    that the batch norms of its hidden layers do not depend on how the batch was cut.
    """

    drops_patches = False

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        self.head = of_kind(model.text, LabelHead, recipe.objective.name, "text = { classes = [] }")
        super().__init__(model, preprocess, recipe, {"image": FeatureTower(model.visual)})
        self.smoothing = recipe.objective.label_smoothing
        self._logits: Tensor | None = None  # of the last loss, to count right answers by

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The classes of those rows, (len(rows), 1), -1 for those that are not known."""
        return batch.tokens[rows, :1].long()

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the number is that of the rows whose class is known."""
        return label_likelihood(self.logits(left), right[:, 0], self.smoothing)

    def logits(self, features: Tensor) -> Tensor:
        """(rows, classes), kept for `correct`. features: (rows, width), this process's."""
        logits: Tensor = self.head(features)
        self._logits = logits.detach()
        return logits

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the images whose class is known, those whose likeliest class it is."""
        assert self._logits is not None
        known = right[:, 0] >= 0
        found = self._logits.argmax(dim=1) == right[:, 0]
        return (found & known).sum(), int(known.sum())
