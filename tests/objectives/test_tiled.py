"""The tiled objectives against the pure ones, in one process; several processes are in tests/training/."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives import tiled
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.tiled import tiled_infonce, tiled_sigmoid

# float64 sums of a few hundred terms of size 1: 1e-12 leaves three digits for their order.
TOLERANCE = 1e-12


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_ROWS", 5)
    monkeypatch.setattr(tiled, "_COLUMNS", 7)


def sides(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    left, right = (
        F.normalize(torch.randn(rows, 6, dtype=torch.float64, generator=generator), dim=-1) for _ in "ab"
    )
    return left.requires_grad_(), right.requires_grad_()


def gradients(total: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [total.detach(), *torch.autograd.grad(total / 3, inputs)]


GROUPS = [None, torch.arange(23) % 9, torch.zeros(23, dtype=torch.int64), torch.arange(23) * 1000 - 5]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_tiled_softmax_equals_the_pure_objective(groups: Tensor | None, scale: float) -> None:
    left, right = sides(23)
    temperature = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    inputs = (left, right, temperature)
    pure, count = infonce(Pairs.whole(left, right, groups), temperature)
    found, rows = tiled_infonce(left, right, temperature, groups)
    assert rows == count == 23
    for one, other in zip(gradients(found, *inputs), gradients(pure, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("groups", GROUPS)
def test_tiled_sigmoid_equals_the_pure_objective(groups: Tensor | None) -> None:
    left, right = sides(23)
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True)
    inputs = (left, right, scale, bias)
    pure, count = sigmoid(Pairs.whole(left, right, groups), scale, bias)
    found, rows = tiled_sigmoid(left, right, scale, bias, groups)
    assert rows == count == 23
    for one, other in zip(gradients(found, *inputs), gradients(pure, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def test_normalisers_hold_where_every_similarity_of_a_column_is_far_below_the_rows_best() -> None:
    # A text that nothing matches: exp of its similarities against the rows' maxima is 0 in float32.
    left = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    scale = torch.tensor(100.0)
    pure, _ = infonce(Pairs.whole(left, right), scale)
    found, _ = tiled_infonce(left, right, scale)
    assert torch.isfinite(found)
    torch.testing.assert_close(found, pure, rtol=1e-6, atol=0)


def test_no_matrix_of_all_pairs_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_ROWS", 64)
    monkeypatch.setattr(tiled, "_COLUMNS", 64)
    rows, kept = 1024, []

    def note(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    left, right = (F.normalize(torch.randn(rows, 8), dim=-1).requires_grad_() for _ in "ab")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        tiled_infonce(left, right, torch.tensor(10.0, requires_grad=True))
        largest_tiled = max(kept)
        infonce(Pairs.whole(left, right), torch.tensor(10.0, requires_grad=True))
    assert largest_tiled == rows * 8
    assert max(kept) == rows * rows  # what the pure objective keeps, which this test would notice
