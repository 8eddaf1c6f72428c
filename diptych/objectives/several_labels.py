"""Learning which of all classes an image is of, each by itself: logistic losses (Bishop 2006, section 4.3.2)."""

import torch.nn.functional as F
from torch import Tensor


def several_labels(logits: Tensor, present: Tensor) -> tuple[Tensor, int]:
    """The sum over images of the mean over classes of -ln p of what is so, (), in nats, and the number of images.

    logits: (rows, classes). present: (rows, classes), 1 where the image is of that class and 0 where it is not.
    """
    losses = F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none")
    return losses.mean(dim=1).sum(), len(logits)
