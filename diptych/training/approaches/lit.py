"""LiT: a text tower learns to read a locked image tower (Zhai et al. 2021, "LiT: Zero-Shot Transfer with Locked-image
text Tuning")."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.models.image_model import ImageModel
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.approaches.kept_features import KeptFeatures, may_keep
from diptych.training.settings import Recipe


class LitTask(ClipTask):
    """CLIP's objective; the image tower is in evaluation mode and has no gradient.

    Without augmentation, an image's embedding is computed once and kept.
    """

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        lock(model)
        self.kept = KeptFeatures() if may_keep(recipe) else None

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        with torch.no_grad():
            if self.kept is None:
                return super().image(batch, rows)
            return self.kept.of(batch, rows, lambda new: super(LitTask, self).image(batch, new))


def lock(model: ImageModel) -> None:
    """The image tower keeps its weights and its running averages, whatever is trained beside it."""
    locked = [model.visual, *([model.image_head] if model.image_head is not None else [])]
    for part in locked:
        part.requires_grad_(False)
    model.frozen_parts = (*model.frozen_parts, *locked)
    model.train(model.training)
