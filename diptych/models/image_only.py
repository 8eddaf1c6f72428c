"""Models without texts: what learns from labels, and what learns from two views of each image."""

from torch import Tensor

from diptych.models.capabilities import ClassHead
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.models.layers.projection_head import ProjectionHead


class LabelModel(ImageModel):
    """An image tower and one logit a class (ViT: Dosovitskiy et al. 2020, section 3.1)."""

    description = "an image tower that was trained on labels"
    commands = (
        "`diptych classify` and `diptych evaluate labels` use this model's classes, and `diptych evaluate "
        "linear-probe` its image features"
    )
    halves_text = False

    text: LabelHead  # called so in checkpoints, where it stands in place of a text side

    @property
    def class_head(self) -> ClassHead:
        """The classifier that fine-tuning added, if it did; else the head that the model was trained with."""
        return self.classifier or self.text

    def class_features(self, pixels: Tensor) -> Tensor:
        """See `ImageModel`."""
        if self.classifier is not None:
            return super().class_features(pixels)
        hidden: Tensor = self.text.hidden(self.image_features(pixels).to(self.text.weight.dtype))
        return hidden

    def classify(self, pixels: Tensor) -> Tensor:
        """See `ImageModel`."""
        if self.classifier is not None:
            return super().classify(pixels)
        logits: Tensor = self.text(self.image_features(pixels))
        return logits


class TwoViewModel(ImageModel):
    """An image tower under a head that only the loss of two views needs (SimCLR: Chen et al. 2020)."""

    description = "an image tower that was trained on images alone"
    commands = "`diptych evaluate linear-probe` uses this model's image features"
    halves_text = False

    text: ProjectionHead  # called so in checkpoints, where it stands in place of a text side
