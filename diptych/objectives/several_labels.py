"""Learn the classes of an image independently of each other: logistic losses (Bishop 2006, section 4.3.2)."""

import torch.nn.functional as F
from torch import Tensor


def several_labels(logits: Tensor, present: Tensor) -> tuple[Tensor, int]:
    """Return the binary cross-entropy in nats, (), and the number of images.

    The value is the sum over images of the mean over classes. logits: (rows, classes). present: (rows, classes), 1 if
    the image has that class, else 0.
    """
    losses = F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none")
    return losses.mean(dim=1).sum(), len(logits)
