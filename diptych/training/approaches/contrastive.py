"""CLIP: both towers under the contrastive objective (Radford et al. 2021)."""

from collections.abc import Mapping

from torch import Tensor, nn

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.distributed import world
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from diptych.models.layers.nonlinear_head import HeadedTower
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.tiled import tiled_infonce
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind, ranked_first, unit
from diptych.training.optim.mixed_precision import autocast
from diptych.training.parallel import Forward
from diptych.training.settings import Recipe

# From this many rows in the global batch on, the matrix of similarities is never whole: 4 million are 16 MB.
_TILED_FROM = 2048


class ClipTask(PictureTask):
    """Contrastive pre-training of both towers."""

    def __init__(
        self,
        model: ImageModel,
        preprocess: Preprocess,
        recipe: Recipe,
        towers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        clip = of_kind(model, CLIP, recipe.objective.name, "text = { width = 512, layers = 12 }")
        super().__init__(clip, preprocess, recipe, towers if towers is not None else _both_towers(clip))
        self.clip = clip

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        super().use(towers)
        self._text_tower = towers["text"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        return unit(super().image(batch, rows))

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        with autocast(batch.tokens.device.type, self.precision):
            features = self._text_tower(self.tokens(batch, rows))
        return unit(features)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        scale = self.model.logit_scale.exp()
        if is_tiled(len(left) * world().size):
            return tiled_infonce(left, right, scale, groups)
        return infonce(Pairs.gathered(left, right, groups), scale)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first images, those that rank a right text of the global batch first."""
        return ranked_first(left, right, groups)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        self.clip.clamp_logit_scale()
        return {"logit_scale": self.model.logit_scale.exp().item()}


def _both_towers(model: CLIP) -> dict[str, nn.Module]:
    if model.image_head is None or model.text_head is None:
        return {"image": model.visual, "text": model.text}
    return {
        "image": HeadedTower(model.visual, model.image_head),
        "text": HeadedTower(model.text, model.text_head),
    }


def is_tiled(rows: int) -> bool:
    """Whether the loss of a global batch of so many rows is worked out in tiles."""
    return rows >= _TILED_FROM
