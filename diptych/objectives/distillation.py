"""Learn from a teacher's probabilities (Hinton et al. 2015; Chen et al. 2020, SimCLRv2, equations 2 and 3)."""

import torch.nn.functional as F
from torch import Tensor


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, int]:
    """Return the cross-entropy of the student's probabilities under the teacher's, without labels.

    student, teacher: (rows, classes), logits; no gradient flows into the teacher's. temperature: the divisor of both
    sides' logits; below 1 it sharpens (SimCLRv2 has 0.1 for a student of the teacher's size and 1 for a smaller one),
    above 1 it softens (Hinton's form).
    Returns the sum over the rows, times temperature^2, so that the size of the gradient does not depend on it (Hinton
    et al., section 2), and the number of rows. The value is the Kullback-Leibler divergence plus the teacher's entropy,
    with the same gradient; it is that entropy if both agree.
    """
    target = F.softmax(teacher.detach() / temperature, dim=1)
    likelihood = F.log_softmax(student / temperature, dim=1)
    return -(target * likelihood).sum() * temperature**2, len(student)


def distillation_with_labels(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, weight: float
) -> tuple[Tensor, int]:
    """Return (1 - weight) times the cross-entropy of the labels plus weight times `distillation`.

    This is SimCLRv2's equation 3. student, teacher: (rows, classes), logits. labels: (rows,), classes; a negative one
    is unknown, and its row has only the teacher's part. weight: 0..1. Returns the sum over the rows, and their number.
    """
    known = labels >= 0
    hard = F.cross_entropy(student[known], labels[known], reduction="sum")
    soft, count = distillation(student, teacher, temperature)
    return (1 - weight) * hard + weight * soft, count
