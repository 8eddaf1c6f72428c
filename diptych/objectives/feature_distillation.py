"""Distil a large CLIP into a small one (Yang et al. 2023, CLIP-KD; Wu et al. 2023, TinyCLIP).

The student's and the teacher's rows are the same pairs in the same order. Gradients flow only into the student.
Each objective returns a sum over this process's rows, and their number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.pairs import Pairs


def feature_distillation(student: Pairs, teacher: Pairs) -> tuple[Tensor, int]:
    """Return the squared distance of the student's embeddings from the teacher's (CLIP-KD's "FD", with weight 2,000).

    Both have the teacher's width: a student of another width is mapped to it before, and normalised again. The value is
    the mean of the squared difference over the dimensions, with images and texts added.
    """
    images = F.mse_loss(student.left, teacher.left.detach(), reduction="none").mean(dim=1).sum()
    texts = F.mse_loss(student.right, teacher.right.detach(), reduction="none").mean(dim=1).sum()
    return images + texts, len(student.left)


def affinity_distillation(
    student: Pairs, teacher: Pairs, student_scale: Tensor, teacher_scale: Tensor
) -> tuple[Tensor, int]:
    """Return the cross-entropy of the student's similarities under the teacher's.

    It is TinyCLIP's affinity mimicking and CLIP-KD's "CRD". student_scale, teacher_scale: (), inverse temperatures,
    already exponentiated, one per side. The widths may differ. The targets are the teacher's probabilities over all
    texts for each image, and over all images for each text; the value is the mean of both directions. It is the
    teacher's entropy if both agree.
    """
    total = student.left.new_zeros(())
    for rows, others, wanted, among in (
        (student.left, student.all_right, teacher.left, teacher.all_right),
        (student.right, student.all_left, teacher.right, teacher.all_left),
    ):
        target = F.softmax(teacher_scale.detach() * wanted.detach() @ among.detach().T, dim=1)
        likelihood = F.log_softmax(student_scale * rows @ others.T, dim=1)
        total = total - (target * likelihood).sum()
    return total / 2, len(student.left)


def interactive_distillation(student: Pairs, teacher: Pairs, scale: Tensor) -> tuple[Tensor, int]:
    """Contrast the student's images with the teacher's texts, and its texts with the teacher's images.

    It is CLIP-KD's "ICL". scale: (), the student's inverse temperature, already exponentiated. Both have the teacher's
    width. The value is the mean of both directions of the contrastive loss, with the teacher's embeddings as constants.
    """
    count = len(student.left)
    mine = torch.arange(student.first, student.first + count, device=student.left.device)
    to_texts = scale * student.left @ teacher.all_right.detach().T
    to_images = scale * student.right @ teacher.all_left.detach().T
    images = F.cross_entropy(to_texts, mine, reduction="sum")
    texts = F.cross_entropy(to_images, mine, reduction="sum")
    return (images + texts) / 2, count
