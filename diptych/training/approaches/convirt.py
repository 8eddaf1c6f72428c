"""ConVIRT: two directions with weights of their own, a fixed temperature, non-linear heads (Zhang et al. 2020)."""

import math

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.objectives.directional import convirt
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.settings import Recipe


class ConvirtTask(ClipTask):
    """The texts are what the loader draws: with `[data] text = { sentence = 1.0 }`, one sentence of each report."""

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        if model.architecture.heads != "nonlinear":
            raise SettingsError('[objective] convirt: set [model.architecture] heads = "nonlinear"')
        self.temperature = recipe.objective.temperature
        self.image_weight = recipe.objective.image_weight
        # It is not learned, but the model that is saved is read with it.
        with torch.no_grad():
            model.logit_scale.fill_(-math.log(self.temperature))
        model.logit_scale.requires_grad_(False)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        return convirt(Pairs.gathered(left, right, groups), self.temperature, self.image_weight)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}
