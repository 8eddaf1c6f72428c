"""CLIP: both towers under the contrastive objective (Radford et al. 2021)."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from diptych.data.batch import Batch
from diptych.distributed import world
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from diptych.models.layers.nonlinear_head import HeadedTower
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.tiled import tiled_infonce
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder, TextEncoder
from diptych.training.encoding.features import of_kind, ranked_first, unit

# What an accuracy counts, and what suits a model, where images and texts meet in one space.
MATCHED = "the text of an image, among all of a batch"
OF_PAIRS = ("zero-shot", "retrieval", "linear-probe", "few-shot", "word-order")
# From this many rows in the global batch on, the matrix of similarities is never whole: 4 million are 16 MB.
_TILED_FROM = 2048


@dataclass(frozen=True, kw_only=True)
class ClipSettings(ObjectiveSettings):
    """CLIP has no settings of its own."""

    name: Literal["clip"] = "clip"


class ClipTask(Task):
    """Train both towers on pairs.

    settings: of whichever approach builds on this one. text_tower: the model's own when not given.
    """

    def __init__(
        self,
        model: ImageModel,
        encoding: Encoding,
        settings: ObjectiveSettings,
        text_tower: nn.Module | None = None,
    ) -> None:
        self.clip = of_kind(model, CLIP, settings.name, "text = { width = 512, layers = 12 }")
        image, text = _both_towers(self.clip)
        self.images = ImageEncoder(model, encoding, image)
        self.texts = TextEncoder(text if text_tower is None else text_tower, encoding)
        super().__init__(model, {"image": self.images, "text": self.texts})

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return unit-length embeddings; see `Task`."""
        return unit(self.images.encode(batch, rows))

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return unit-length embeddings; see `Task`."""
        return unit(self.texts.encode(batch, rows))

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        scale = self.model.logit_scale.exp()
        if is_tiled(len(left) * world().size):
            return tiled_infonce(left, right, scale, groups)
        return infonce(Pairs.gathered(left, right, groups), scale)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the first images that rank a right text of the global batch first."""
        return ranked_first(left, right, groups)

    def after_step(self) -> dict[str, float]:
        """Keep the scale of the logits below 100."""
        self.clip.clamp_logit_scale()
        return {"logit_scale": self.model.logit_scale.exp().item()}


def _both_towers(model: CLIP) -> tuple[nn.Module, nn.Module]:
    if model.image_head is None or model.text_head is None:
        return model.visual, model.text
    return HeadedTower(model.visual, model.image_head), HeadedTower(model.text, model.text_head)


def is_tiled(rows: int) -> bool:
    """Return whether the loss of a global batch of `rows` rows is computed in tiles."""
    return rows >= _TILED_FROM


APPROACH = Approach(
    settings=ClipSettings,
    task=ClipTask,
    evaluations=OF_PAIRS,
    right=MATCHED,
    has_negatives=True,
    chance_loss=math.log,
)
