"""ConVIRT: two directions with weights of their own, a fixed temperature, non-linear heads (Zhang et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.objectives.directional import convirt
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.contrastive import MATCHED, OF_PAIRS, ClipTask
from diptych.training.encoding.encoders import Encoding


@dataclass(frozen=True, kw_only=True)
class ConvirtSettings(ObjectiveSettings):
    """The two numbers of the paper's objective."""

    name: Literal["convirt"] = "convirt"
    # What similarities are divided by; fixed, not learned.
    temperature: float = 0.1
    # The paper's lambda, 0..1: the weight of the direction from images to texts; the other has 1 - lambda.
    image_weight: float = 0.75


class ConvirtTask(ClipTask):
    """The texts are what the loader draws: with `[data] text = { sentence = 1.0 }`, one sentence of each report."""

    def __init__(self, model: ImageModel, encoding: Encoding, settings: ConvirtSettings) -> None:
        super().__init__(model, encoding, settings)
        if model.architecture.heads != "nonlinear":
            raise SettingsError('[objective] convirt: set [model.architecture] heads = "nonlinear"')
        self.settings = settings
        # It is not learned, but the model that is saved is read with it.
        with torch.no_grad():
            model.logit_scale.fill_(-math.log(settings.temperature))
        model.logit_scale.requires_grad_(False)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        pairs = Pairs.gathered(left, right, groups)
        return convirt(pairs, self.settings.temperature, self.settings.image_weight)

    def after_step(self) -> dict[str, float]:
        """Do nothing: the scale is fixed."""
        return {}


APPROACH = Approach(
    settings=ConvirtSettings,
    task=ConvirtTask,
    evaluations=OF_PAIRS,
    right=MATCHED,
    has_negatives=True,
    chance_loss=math.log,
)
