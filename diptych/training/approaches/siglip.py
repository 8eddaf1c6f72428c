"""SigLIP: the same towers under a sigmoid objective (Zhai et al. 2023)."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from diptych.distributed import world
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.tiled import tiled_sigmoid
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.contrastive import MATCHED, OF_PAIRS, ClipTask, is_tiled
from diptych.training.encoding.encoders import Encoding

_FIRST_BIAS = -10.0  # Zhai et al. 2023, algorithm 1


@dataclass(frozen=True, kw_only=True)
class SiglipSettings(ObjectiveSettings):
    """SigLIP has no settings of its own."""

    name: Literal["siglip"] = "siglip"


class SiglipTask(ClipTask):
    """Train both towers under SigLIP's sigmoid objective (Zhai et al. 2023)."""

    def __init__(self, model: ImageModel, encoding: Encoding, settings: SiglipSettings) -> None:
        super().__init__(model, encoding, settings)
        if model.logit_bias is None:
            raise SettingsError(
                "[objective] siglip: the model has no bias of its logits; set [model.architecture] "
                "logit_bias = -10.0"
            )
        self.bias = model.logit_bias

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        scale = self.model.logit_scale.exp()
        if is_tiled(len(left) * world().size):
            return tiled_sigmoid(left, right, scale, self.bias, groups)
        return sigmoid(Pairs.gathered(left, right, groups), scale, self.bias)

    def after_step(self) -> dict[str, float]:
        """See `ClipTask`; the log gets the bias, too."""
        return {**super().after_step(), "logit_bias": self.bias.item()}


def _with_bias(architecture: Architecture) -> Architecture:
    return (
        architecture if architecture.logit_bias is not None else replace(architecture, logit_bias=_FIRST_BIAS)
    )


def _first_loss(_: SiglipSettings, batch_size: int, architecture: Architecture) -> float:
    """Return the loss of a "no" to every pair, which is wrong for one text of each image and right for the others."""
    bias = _with_bias(architecture).logit_bias
    assert bias is not None
    return math.log1p(math.exp(-bias)) + (batch_size - 1) * math.log1p(math.exp(bias))


APPROACH = Approach(
    settings=SiglipSettings,
    task=SiglipTask,
    evaluations=OF_PAIRS,
    right=MATCHED,
    has_negatives=True,
    first_loss=_first_loss,
    complete=_with_bias,
)
