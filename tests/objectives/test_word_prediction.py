"""Bag-of-words prediction against loops and the library's soft-target losses."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.word_set import word_detection, word_prediction

WORDS = torch.tensor([[2, 5, -1], [0, -1, -1], [-1, -1, -1], [6, 3, 1]])
Objective = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, int]]


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((4, 3), (7, 3), (7,))]


def targets() -> Tensor:
    hot = torch.zeros(4, 7, dtype=torch.float64)
    for row, words in enumerate(WORDS.tolist()):
        for word in words:
            if word >= 0:
                hot[row, word] = 1.0
    return hot


def test_softmax_loss_equals_slow_loop_and_soft_targets() -> None:
    features, table, bias = inputs()
    expected = 0.0
    for row, words in enumerate(WORDS.tolist()):
        scores = [float(features[row] @ table[word] + bias[word]) for word in range(7)]
        normaliser = math.log(sum(map(math.exp, scores)))
        there = [word for word in words if word >= 0]
        expected += sum(normaliser - scores[word] for word in there) / max(1, len(there))
    total, count = word_prediction(features, table, bias, WORDS)
    assert count == 3  # a caption without words asks for nothing
    assert total.item() == pytest.approx(expected, rel=1e-12)
    hot = targets()[[0, 1, 3]]
    logits = (features @ table.T + bias)[[0, 1, 3]]
    library = F.cross_entropy(logits, hot / hot.sum(1, keepdim=True), reduction="sum")
    torch.testing.assert_close(total, library, rtol=1e-12, atol=0)


def test_sigmoid_loss_equals_the_library_over_the_whole_vocabulary() -> None:
    features, table, bias = inputs()
    total, count = word_detection(features, table, bias, WORDS)
    logits = (features @ table.T + bias)[[0, 1, 3]]
    library = F.binary_cross_entropy_with_logits(logits, targets()[[0, 1, 3]], reduction="sum")
    assert count == 3
    torch.testing.assert_close(total, library, rtol=1e-12, atol=0)


@pytest.mark.parametrize("objective", [word_prediction, word_detection])
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    leaves = [leaf.requires_grad_() for leaf in inputs()]

    def loss(features: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        return objective(features, table, bias, WORDS)[0]

    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("objective", [word_prediction, word_detection])
def test_shares_of_a_batch_add_up_and_the_order_of_words_is_nothing(objective: Objective) -> None:
    features, table, bias = inputs()
    whole = objective(features, table, bias, WORDS)
    parts = [objective(features[mine], table, bias, WORDS[mine].flip(1)) for mine in (slice(2), slice(2, 4))]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole[0], rtol=1e-12, atol=0)
    assert parts[0][1] + parts[1][1] == whole[1]
