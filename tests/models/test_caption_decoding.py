"""Beam search against every text there is, and the nucleus against its definition."""

import itertools

import pytest
import torch
from torch import Tensor

from diptych.models.heads.generation import beam_search, nucleus, sample

START, END, WORDS = 0, 1, 4


def table_model(seed: int) -> Tensor:
    """log p of the next word, given the last two words: (words, words, words)."""
    scores = torch.randn(WORDS, WORDS, WORDS, generator=torch.Generator().manual_seed(seed))
    return (2 * scores).log_softmax(dim=2)


def next_word(model: Tensor, prefixes: Tensor) -> Tensor:
    before = prefixes[:, -2] if prefixes.shape[1] > 1 else torch.zeros(len(prefixes), dtype=torch.long)
    return model[before, prefixes[:, -1]]


def likelihood(model: Tensor, text: list[int]) -> float:
    return sum(
        float(next_word(model, torch.tensor([text[:place]]))[0, text[place]]) for place in range(1, len(text))
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_likeliest_of_all_texts(seed: int) -> None:
    model = table_model(seed)
    texts = [
        [START, *inner, END] for length in range(4) for inner in itertools.product([0, 2, 3], repeat=length)
    ]
    best = max(texts, key=lambda text: likelihood(model, text))
    found, score = beam_search(lambda prefixes: next_word(model, prefixes), START, END, 500, 5)
    assert found == best
    assert score == pytest.approx(likelihood(model, best), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_and_five_are_no_worse(seed: int) -> None:
    model = table_model(seed)
    greedy = [START]
    while len(greedy) < 6 and (len(greedy) == 1 or greedy[-1] != END):
        greedy.append(int(next_word(model, torch.tensor([greedy]))[0].argmax()))
    one, score = beam_search(lambda prefixes: next_word(model, prefixes), START, END, 1, 6)
    assert one == greedy
    five, better = beam_search(lambda prefixes: next_word(model, prefixes), START, END, 5, 6)
    if one[-1] == END and five[-1] == END:
        assert better >= score - 1e-6


def test_the_nucleus_is_the_smallest_set_of_that_mass() -> None:
    chances = torch.tensor([0.1, 0.4, 0.3, 0.2])
    torch.testing.assert_close(nucleus(chances.log(), 0.65), torch.tensor([0.0, 4 / 7, 3 / 7, 0.0]))
    torch.testing.assert_close(nucleus(chances.log(), 1.0), chances)
    assert nucleus(chances.log(), 1e-9).tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="mass"):
        nucleus(chances.log(), 0.0)


def test_samples_repeat_with_their_seed_and_stay_in_the_nucleus() -> None:
    model = table_model(3)

    def draw(seed: int, mass: float) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return sample(
            lambda prefixes: next_word(model, prefixes),
            START,
            END,
            mass=mass,
            longest=6,
            generator=generator,
        )

    assert draw(1, 0.9) == draw(1, 0.9)
    assert len({tuple(draw(seed, 0.9)) for seed in range(20)}) > 3
    greedy, _ = beam_search(lambda prefixes: next_word(model, prefixes), START, END, 1, 6)
    assert draw(5, 1e-6) == greedy
