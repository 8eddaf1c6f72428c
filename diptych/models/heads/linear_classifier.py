"""A linear classifier on a CLIP's image tower, beside the text tower (Wortsman et al. 2022, WiSE-FT, section 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models import architectures


class ImageClassifier(nn.Module):
    """One logit a class, of an image's embedding or features; it begins at zero, where every class is as likely."""

    def __init__(self, size: architectures.Classifier, width: int) -> None:
        super().__init__()
        self.classes = size.classes
        self.several = size.several
        self.reads = size.reads
        self.weight = nn.Parameter(torch.zeros(len(size.classes), width))
        self.bias = nn.Parameter(torch.zeros(len(size.classes)))

    def forward(self, features: Tensor) -> Tensor:
        """features: (rows, width), as the image tower gives them; returns logits, (rows, classes), float32 at least."""
        seen = self.seen(features)
        return F.linear(seen, self.weight.to(seen.dtype), self.bias.to(seen.dtype))

    def seen(self, features: Tensor) -> Tensor:
        """What the weights are multiplied with: embeddings of unit length, or features as they are."""
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        return F.normalize(wide, dim=-1) if self.reads == "embedding" else wide
