"""Learning from a teacher's probabilities, against slow loops, torch's divergence, and what must hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.distillation import distillation, distillation_with_labels


def logits(rows: int, classes: int, seed: int) -> Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_softmax(row: Tensor, temperature: float) -> list[float]:
    terms = [math.exp(float(value) / temperature) for value in row]
    return [term / sum(terms) for term in terms]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_loss_equals_the_slow_double_loop_over_rows_and_classes(temperature: float) -> None:
    student, teacher = logits(5, 4, 1), logits(5, 4, 2)
    expected = 0.0
    for one, other in zip(student, teacher, strict=True):
        for target, found in zip(
            slow_softmax(other, temperature), slow_softmax(one, temperature), strict=True
        ):
            expected -= target * math.log(found)
    total, count = distillation(student, teacher, temperature)
    assert count == 5
    assert total.item() == pytest.approx(expected * temperature**2, rel=1e-10)


def test_it_is_the_divergence_plus_the_teachers_entropy_and_equal_logits_have_no_gradient() -> None:
    student, teacher = logits(6, 3, 3).requires_grad_(), logits(6, 3, 4)
    target = F.softmax(teacher / 2.0, dim=1)
    entropy = -(target * target.log()).sum()
    divergence = F.kl_div(F.log_softmax(student / 2.0, dim=1), target, reduction="sum")
    total, _ = distillation(student, teacher, 2.0)
    torch.testing.assert_close(total / 4.0, divergence + entropy)
    same = teacher.clone().requires_grad_()
    distillation(same, teacher, 2.0)[0].backward()
    assert same.grad is not None
    torch.testing.assert_close(same.grad, torch.zeros_like(same), rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences_and_the_teacher_has_none() -> None:
    student, teacher = logits(4, 3, 5).requires_grad_(), logits(4, 3, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: distillation(rows, teacher.detach(), 0.7)[0], (student,))
    distillation(student, teacher, 0.7)[0].backward()
    assert teacher.grad is None


def test_a_temperature_below_one_sharpens_the_target_and_the_square_keeps_a_soft_gradients_size() -> None:
    teacher = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def gradient(temperature: float, times: float) -> float:
        student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        distillation(student, times * teacher, temperature)[0].backward()
        assert student.grad is not None
        return float(student.grad.abs().max())

    # High temperatures: (teacher - student) / classes / 2, whatever the temperature is.
    assert gradient(50, 1) == pytest.approx(gradient(100, 1), rel=1e-3)
    # At 0.1 the larger logit is taken for certain: half a probability away, times the temperature.
    assert gradient(0.1, 1) / 0.1 == pytest.approx(0.5, rel=1e-3)
    assert gradient(1.0, 1) == pytest.approx(1 / (1 + math.exp(-1)) - 0.5, rel=1e-9)


def test_labels_join_by_weight_and_a_row_without_one_has_the_teachers_part_alone() -> None:
    student, teacher = logits(4, 3, 7), logits(4, 3, 8)
    labels = torch.tensor([2, -1, 0, -1])
    total, count = distillation_with_labels(student, teacher, labels, 1.0, 0.25)
    hard = sum(-math.log(slow_softmax(student[row], 1.0)[int(labels[row])]) for row in (0, 2))
    soft, _ = distillation(student, teacher, 1.0)
    assert count == 4
    assert total.item() == pytest.approx(0.75 * hard + 0.25 * soft.item(), rel=1e-10)
    unlabelled = torch.full((4,), -1)
    torch.testing.assert_close(distillation_with_labels(student, teacher, unlabelled, 1.0, 1.0)[0], soft)
