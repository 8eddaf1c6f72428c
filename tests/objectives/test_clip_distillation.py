"""What a small CLIP learns from a large one: slow loops, open_clip's loss, and what holds when both agree."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.feature_distillation import (
    affinity_distillation,
    feature_distillation,
    interactive_distillation,
)
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs

SCALE, TEACHER_SCALE = (torch.tensor(value, dtype=torch.float64) for value in (12.0, 30.0))
Objective = Callable[[Pairs, Pairs], tuple[Tensor, int]]
OBJECTIVES: dict[str, Objective] = {
    "feature": feature_distillation,
    "affinity": lambda student, teacher: affinity_distillation(student, teacher, SCALE, TEACHER_SCALE),
    "interactive": lambda student, teacher: interactive_distillation(student, teacher, SCALE),
}


def unit(rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


def pairs(rows: int, dim: int, seed: int) -> Pairs:
    return Pairs.whole(unit(rows, dim, seed), unit(rows, dim, seed + 100))


def slow_rows(scale: float, rows: Tensor, others: Tensor) -> list[list[float]]:
    """Probabilities of each row over the others."""
    found = []
    for row in rows:
        terms = [math.exp(scale * float(row @ other)) for other in others]
        found.append([term / sum(terms) for term in terms])
    return found


def test_feature_distance_equals_the_slow_loop() -> None:
    student, teacher = pairs(5, 4, 1), pairs(5, 4, 2)
    expected = sum(
        float((one[i, k] - other[i, k]) ** 2) / 4
        for one, other in ((student.left, teacher.left), (student.right, teacher.right))
        for i in range(5)
        for k in range(4)
    )
    total, count = feature_distillation(student, teacher)
    assert count == 5
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert feature_distillation(student, student)[0].item() == 0


def test_affinity_equals_the_slow_loop_and_the_widths_may_differ() -> None:
    student, teacher = pairs(5, 4, 3), pairs(5, 7, 4)
    expected = 0.0
    for side, other in (("left", "right"), ("right", "left")):
        target = slow_rows(30.0, getattr(teacher, side), getattr(teacher, other))
        found = slow_rows(12.0, getattr(student, side), getattr(student, other))
        expected -= sum(target[i][k] * math.log(found[i][k]) for i in range(5) for k in range(5)) / 2
    total, _ = affinity_distillation(student, teacher, SCALE, TEACHER_SCALE)
    assert total.item() == pytest.approx(expected, rel=1e-10)


def test_affinity_equals_open_clips_distillation_loss(open_clip: Any) -> None:
    student, teacher = pairs(6, 4, 5), pairs(6, 4, 6)
    both = open_clip.loss.DistillClipLoss()(
        student.left, student.right, SCALE, teacher.left, teacher.right, TEACHER_SCALE, output_dict=True
    )
    total, count = affinity_distillation(student, teacher, SCALE, TEACHER_SCALE)
    torch.testing.assert_close(total / count, both["distill_loss"], rtol=1e-10, atol=0)


def test_affinity_of_equals_is_the_teachers_entropy_and_has_no_gradient() -> None:
    teacher = pairs(6, 5, 7)
    left, right = teacher.left.clone().requires_grad_(), teacher.right.clone().requires_grad_()
    total, _ = affinity_distillation(Pairs.whole(left, right), teacher, TEACHER_SCALE, TEACHER_SCALE)
    entropy = 0.0
    for rows, others in ((teacher.left, teacher.right), (teacher.right, teacher.left)):
        entropy -= sum(p * math.log(p) for row in slow_rows(30.0, rows, others) for p in row) / 2
    assert total.item() == pytest.approx(entropy, rel=1e-10)
    total.backward()
    for side in (left, right):
        assert side.grad is not None
        torch.testing.assert_close(side.grad, torch.zeros_like(side), rtol=0, atol=1e-12)


def test_interactive_loss_crosses_the_models_and_is_clips_where_both_are_one() -> None:
    student, teacher = pairs(6, 5, 8), pairs(6, 5, 9)
    to_texts = slow_rows(12.0, student.left, teacher.right)
    to_images = slow_rows(12.0, student.right, teacher.left)
    expected = -sum(math.log(to_texts[i][i]) + math.log(to_images[i][i]) for i in range(6)) / 2
    total, _ = interactive_distillation(student, teacher, SCALE)
    assert total.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(
        interactive_distillation(student, student, SCALE)[0], infonce(student, SCALE)[0], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_finite_differences_and_the_teacher_has_none(name: str) -> None:
    student = [unit(4, 3, 10).requires_grad_(), unit(4, 3, 11).requires_grad_()]
    fixed = [unit(4, 3, 12).requires_grad_(), unit(4, 3, 13).requires_grad_()]
    teacher = Pairs.whole(*fixed)

    def loss(left: Tensor, right: Tensor) -> Tensor:
        return OBJECTIVES[name](Pairs.whole(left, right), teacher)[0]

    assert torch.autograd.gradcheck(loss, student)
    loss(*student).backward()
    assert all(side.grad is not None for side in student)
    assert all(side.grad is None for side in fixed)


def test_a_scale_learns_from_the_students_side_alone() -> None:
    student, teacher = pairs(5, 4, 14), pairs(5, 4, 15)
    own, others = SCALE.clone().requires_grad_(), TEACHER_SCALE.clone().requires_grad_()
    affinity_distillation(student, teacher, own, others)[0].backward()
    assert own.grad is not None
    assert others.grad is None
    assert torch.autograd.gradcheck(
        lambda scale: interactive_distillation(student, teacher, scale)[0], (own,)
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_shares_of_a_batch_add_up_to_the_whole(name: str) -> None:
    student, teacher = pairs(8, 5, 16), pairs(8, 5, 17)
    whole, _ = OBJECTIVES[name](student, teacher)
    total, seen = torch.zeros((), dtype=torch.float64), 0
    for share in (5, 2, 1):
        mine = slice(seen, seen + share)
        parts = [
            Pairs(model.left[mine], model.right[mine], model.left, model.right, seen)
            for model in (student, teacher)
        ]
        part, rows = OBJECTIVES[name](*parts)
        total, seen = total + part, seen + rows
    torch.testing.assert_close(total, whole, rtol=1e-12, atol=0)
