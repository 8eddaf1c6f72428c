"""SimCLR: two views of each image find each other (Chen et al. 2020)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.data.two_views import TwoViews, random_view, view_chances
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.models.global_batch_norm import norm_globally
from diptych.models.projection_head import FeatureTower, ProjectionHead
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.training.parallel import Forward
from diptych.training.precision import autocast
from diptych.training.settings import Recipe
from diptych.training.tasks.clip import ClipTask
from diptych.training.tasks.sides import text_side, unit, wide


class SimclrTask(ClipTask):
    """Two views of each image find each other among the views of all (SimCLR: Chen et al. 2020).

    The tower ends before its projection; both views of an image travel as one row. The head belongs to no tower and
    sees the rows of every process at once, so that its batch norms do not depend on how the batch was cut.
    """

    embeds_texts = False
    needs_captions = False

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.head = text_side(model, ProjectionHead, "simclr", "text = { head_layers = 2 }")
        if not isinstance(recipe.augmentation, TwoViews):
            raise SettingsError(
                '[objective] simclr compares two random views: set [augmentation] name = "two-views"'
            )
        if self.patch_dropout:
            raise SettingsError(
                "[training] patch_dropout: not for simclr, whose views are crops; set it to 0"
            )
        self.two_views = recipe.augmentation
        self.temperature = recipe.objective.temperature
        norm_globally(model.visual)
        self.towers = {"image": FeatureTower(model.visual)}
        self.use(self.towers)
        self._projected: tuple[Tensor, Tensor] | None = None  # of the last loss, to count right answers by

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower = towers["image"]

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
        pixels = ((torch.cat(both) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with autocast(pixels.device.type, self.precision):
            features = wide(self._image_tower(pixels.to(self.model.dtype)))
        return torch.cat(features.chunk(2), dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The places of those rows' examples in the source, (len(rows), 1)."""
        return batch.rows[rows, None]

    def text_order(self, batch: Batch) -> Tensor:
        """As they come."""
        return torch.arange(len(batch.rows), device=batch.rows.device)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. A picture that is in the batch twice is no negative of itself."""
        first, second = unit(self.head(torch.cat(left.chunk(2, dim=1)))).chunk(2)
        self._projected = first.detach(), second.detach()
        same = right[:, 0] if groups is None else groups
        return nt_xent(Pairs.gathered(first, second, same), self.temperature)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first 1,024 images, those whose first view has its second nearest among all second views."""
        assert self._projected is not None
        return super().correct(*self._projected, right[:, 0])

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}
