"""The captioning objectives against loops over tokens."""

import math

import pytest
import torch
from torch import Tensor

from diptych.objectives import vocabulary_softmax
from diptych.objectives.next_word import captioning, masked_words

ENDS = [3, 1, 4, 2]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    states, table, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((4, 5, 3), (7, 3), (7,))
    )
    return states, table, bias, torch.randint(0, 7, (4, 5), generator=generator)


def slow(states: Tensor, table: Tensor, bias: Tensor, word: int) -> float:
    logits = [float(states @ table[each] + bias[each]) for each in range(len(table))]
    return math.log(sum(map(math.exp, logits))) - logits[word]


def test_loss_equals_slow_loop_and_ignores_what_follows_the_end() -> None:
    states, table, bias, tokens = inputs()
    expected = sum(
        slow(states[row, place], table, bias, int(tokens[row, place + 1]))
        for row, end in enumerate(ENDS)
        for place in range(end)
    )
    total, count = captioning(states, table, bias, tokens, torch.tensor(ENDS))
    assert count == sum(ENDS)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    for row, end in enumerate(ENDS):
        tokens[row, end + 1 :] = 0  # an id like any other
    assert captioning(states, table, bias, tokens, torch.tensor(ENDS))[0].item() == total.item()


def test_masked_loss_equals_slow_loop() -> None:
    states, table, bias, tokens = inputs()
    chosen = torch.zeros(4, 5, dtype=torch.bool)
    chosen[0, 2] = chosen[3, 1] = True
    total, count = masked_words(states, table, bias, tokens, chosen)
    expected = slow(states[0, 2], table, bias, int(tokens[0, 2])) + slow(
        states[3, 1], table, bias, int(tokens[3, 1])
    )
    assert count == 2
    assert total.item() == pytest.approx(expected, rel=1e-12)
    nothing, none = masked_words(states, table, bias, tokens, torch.zeros_like(chosen))
    assert (nothing.item(), none) == (0.0, 0)


@pytest.mark.parametrize("logits", [1 << 24, 20])
def test_gradients_equal_finite_differences_whole_and_in_pieces(
    monkeypatch: pytest.MonkeyPatch, logits: int
) -> None:
    monkeypatch.setattr(vocabulary_softmax, "_LOGITS", logits)
    *given, tokens = inputs()
    ends = torch.tensor(ENDS)

    def loss(states: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        return captioning(states, table, bias, tokens, ends)[0]

    assert torch.autograd.gradcheck(loss, [leaf.requires_grad_() for leaf in given])


def test_shares_of_a_batch_add_up_to_the_whole() -> None:
    states, table, bias, tokens = inputs()
    ends = torch.tensor(ENDS)
    whole = captioning(states, table, bias, tokens, ends)
    parts = [
        captioning(states[mine], table, bias, tokens[mine], ends[mine]) for mine in (slice(3), slice(3, 4))
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole[0], rtol=1e-12, atol=0)
    assert parts[0][1] + parts[1][1] == whole[1]
