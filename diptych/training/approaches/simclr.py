"""SimCLR: two views of each image find each other (Chen et al. 2020)."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.images.two_views import TwoViews, random_view, view_chances
from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.global_batch_norm import norm_globally
from diptych.models.layers.projection_head import FeatureTower, ProjectionHead
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind, ranked_first, unit, wide
from diptych.training.optim.mixed_precision import autocast
from diptych.training.settings import Recipe


class SimclrTask(PictureTask):
    """Two views of each image find each other among the views of all (SimCLR: Chen et al. 2020).

    The tower ends before its projection; both views of an image travel as one row. The head belongs to no tower and
    sees the rows of every process at once, so that its batch norms do not depend on how the batch was cut.
    """

    needs_captions = False
    drops_patches = False

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        self.head = of_kind(model.text, ProjectionHead, "simclr", "text = { head_layers = 2 }")
        if not isinstance(recipe.augmentation, TwoViews):
            raise SettingsError(
                '[objective] simclr compares two random views: set [augmentation] name = "two-views"'
            )
        norm_globally(model.visual)
        super().__init__(model, preprocess, recipe, {"image": FeatureTower(model.visual)})
        self.two_views = recipe.augmentation
        self.temperature = recipe.objective.temperature
        self._projected: tuple[Tensor, Tensor] | None = None  # of the last loss, to count right answers by

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """The features h of both views of those rows' images: (len(rows), 2 * width)."""
        both = [
            random_view(
                batch.canvas[rows],
                batch.mirrored[rows],
                view_chances(batch.seeds[rows], view),
                self.two_views,
                self.preprocess.resolution,
            )
            for view in (0, 1)
        ]
        pixels = self.pixels(torch.cat(both))
        with autocast(pixels.device.type, self.precision):
            features = wide(self._image_tower(pixels.to(self.model.dtype)))
        return torch.cat(features.chunk(2), dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The places of those rows' examples in the source, (len(rows), 1)."""
        return batch.rows[rows, None]

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. A picture that is in the batch twice is no negative of itself."""
        first, second = unit(self.head(torch.cat(left.chunk(2, dim=1)))).chunk(2)
        self._projected = first.detach(), second.detach()
        same = right[:, 0] if groups is None else groups
        return nt_xent(Pairs.gathered(first, second, same), self.temperature)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first images, those whose first view has its second nearest among all second views."""
        assert self._projected is not None
        return ranked_first(*self._projected, right[:, 0])
