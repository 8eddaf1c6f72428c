"""SigLIP: the same towers under a sigmoid objective (Zhai et al. 2023)."""

from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.distributed import world
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.tiled import tiled_sigmoid
from diptych.training.approaches.contrastive import ClipTask, is_tiled
from diptych.training.settings import Recipe


class SiglipTask(ClipTask):
    """The same towers under SigLIP's sigmoid objective (Zhai et al. 2023)."""

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
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
        """See `Task`."""
        return {**super().after_step(), "logit_bias": self.bias.item()}
