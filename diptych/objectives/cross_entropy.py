"""Learn from labels: the cross-entropy of the class of each image."""

import torch.nn.functional as F
from torch import Tensor


def label_likelihood(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Return the sum of -log p of the class of each image, and the number of images whose class is known.

    logits: (rows, classes). labels: (rows,), classes; a negative one is unknown, and its row is left out. smoothing:
    0..1, the fraction of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    """
    known = labels >= 0
    total = F.cross_entropy(logits[known], labels[known], reduction="sum", label_smoothing=smoothing)
    return total, int(known.sum())
