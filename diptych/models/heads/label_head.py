"""The head of a model that learns from labels (Dosovitskiy et al. 2020, section 3.1; Chen et al. 2020, SimCLRv2)."""

import torch
from torch import Tensor, nn

from diptych.models import architectures
from diptych.models.layers.projection_head import HiddenLayers


class LabelHead(nn.Module):
    """One logit a class, of image features.

    The last layer begins at zero: every class is equally likely before the first step, and the first gradient does not
    reach the encoder. Below it may stand hidden layers: those of a projection head, from which SimCLRv2 fine-tunes.
    """

    several = False  # an image is of one class

    def __init__(self, size: architectures.LabelHead, width: int) -> None:
        super().__init__()
        self.classes = size.classes
        self.hidden = HiddenLayers(width, size.kept_layers or 0)
        self.weight = nn.Parameter(torch.zeros(len(size.classes), width))
        self.bias = nn.Parameter(torch.zeros(len(size.classes)))

    def forward(self, features: Tensor) -> Tensor:
        """features: (rows, width), of the image tower before its projection; returns logits, (rows, classes)."""
        hidden: Tensor = self.hidden(features)
        return hidden @ self.weight.T + self.bias
