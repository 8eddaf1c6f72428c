"""SimCLR: two views of each image find each other (Chen et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.data.images.two_views import TwoViews, random_view, view_chances
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.global_batch_norm import norm_globally
from diptych.models.layers.projection_head import FeatureTower, ProjectionHead
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder
from diptych.training.encoding.features import of_kind, ranked_first, unit


@dataclass(frozen=True, kw_only=True)
class SimclrSettings(ObjectiveSettings):
    """The one number of NT-Xent."""

    name: Literal["simclr"] = "simclr"
    # What similarities are divided by; fixed, not learned (0.5 for CIFAR-10).
    temperature: float = 0.1


class SimclrTask(Task):
    """Two views of each image find each other among the views of all (SimCLR: Chen et al. 2020).

    The tower ends before its projection; both views of an image travel as one row. The head belongs to no tower and
    sees the rows of every process at once, so that its batch norms do not depend on how the batch was cut.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: SimclrSettings) -> None:
        self.head = of_kind(model.text, ProjectionHead, settings.name, "text = { head_layers = 2 }")
        if not isinstance(encoding.augmentation, TwoViews):
            raise SettingsError(
                '[objective] simclr compares two random views: set [augmentation] name = "two-views"'
            )
        norm_globally(model.visual)
        self.images = ImageEncoder(model, encoding, FeatureTower(model.visual))
        super().__init__(model, {"image": self.images})
        self.two_views, self.resolution = encoding.augmentation, encoding.preprocess.resolution
        self.temperature = settings.temperature
        self._projected: tuple[Tensor, Tensor] | None = None  # of the last loss, to count right answers by

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the features h of both views of those rows' images: (len(rows), 2 * width)."""
        both = [
            random_view(
                batch.canvas[rows],
                batch.mirrored[rows],
                view_chances(batch.seeds[rows], view),
                self.two_views,
                self.resolution,
            )
            for view in (0, 1)
        ]
        features = self.images.run(self.images.normalised(torch.cat(both)))
        return torch.cat(features.chunk(2), dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the indices of those rows' examples in the source, (len(rows), 1)."""
        return batch.rows[rows, None]

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. An image that is in the batch twice is not a negative of itself."""
        first, second = unit(self.head(torch.cat(left.chunk(2, dim=1)))).chunk(2)
        self._projected = first.detach(), second.detach()
        same = right[:, 0] if groups is None else groups
        return nt_xent(Pairs.gathered(first, second, same), self.temperature)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the first images whose first view has its second nearest among all second views."""
        assert self._projected is not None
        return ranked_first(*self._projected, right[:, 0])


APPROACH = Approach(
    settings=SimclrSettings,
    task=SimclrTask,
    evaluations=("linear-probe", "few-shot"),
    right="the other view of an image, among all of a batch",
    has_negatives=True,
    reads_texts=False,
    needs_captions=False,
    drops_patches=False,
    chance_loss=lambda rows: math.log(2 * rows - 1),
)
