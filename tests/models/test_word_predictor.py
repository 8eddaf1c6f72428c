"""The bag-of-words head, the set of a text's words, and which words are hidden."""

import pytest
import torch

from diptych.models import architectures
from diptych.models.heads.word_masking import mask_words
from diptych.models.heads.word_predictor import WordPredictor, distinct_words
from tests.models.small_models import CONTEXT, VOCABULARY, random_texts


def test_the_words_of_a_text_are_a_set_without_its_ends_and_padding() -> None:
    end, start = VOCABULARY - 1, VOCABULARY - 2
    tokens = torch.tensor([[start, 5, 0, 5, 0, end, 0, 0], [start, end, 0, 0, 0, 0, 0, 0]])
    found = distinct_words(tokens)
    assert sorted(set(found[0].tolist())) == [-1, 0, 5]  # the id of the padding is a word where it is one
    assert (found[0] >= 0).sum() == 2
    assert (found[1] == -1).all()


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_scores_are_the_mean_log_probability_of_the_words_of_a_class(loss: str) -> None:
    size = architectures.WordPredictor(word_loss=loss, context_length=CONTEXT, vocab_size=VOCABULARY)  # type: ignore[arg-type]
    torch.manual_seed(0)
    head = WordPredictor(size, 6)
    features, tokens = torch.randn(3, 6), random_texts([4, 8, 2])
    found, likelihood = head.scores(features, tokens), head(features)
    for text in range(2):
        words = sorted(set(tokens[text, 1 : int(tokens[text].argmax())].tolist()))
        torch.testing.assert_close(found[:, text], likelihood[:, words].mean(dim=1))
    assert torch.isneginf(found[:, 2]).all()


def test_hidden_words_are_a_function_of_the_seed_alone() -> None:
    tokens, seeds = random_texts([12, 12, 5, 2]), torch.tensor([3, 4, 3, 9])
    read, hidden, chosen = mask_words(seeds, tokens, 0.3, VOCABULARY)
    assert chosen.sum(dim=1).tolist() == [3, 3, 1, 0]
    assert not chosen[:, 0].any()
    assert not chosen[torch.arange(4), tokens.argmax(dim=1)].any()
    assert (hidden <= chosen).all()
    assert (read[~chosen] == tokens[~chosen]).all()
    alone = mask_words(seeds[1:2], tokens[1:2], 0.3, VOCABULARY)
    assert all(torch.equal(one[0], all_[1]) for one, all_ in zip(alone, (read, hidden, chosen), strict=True))


def test_of_the_chosen_words_four_fifths_are_hidden_and_a_tenth_changed() -> None:
    count = 3000
    tokens = random_texts([12]).expand(count, -1)
    read, hidden, chosen = mask_words(torch.arange(count), tokens, 0.3, VOCABULARY)
    number = chosen.sum().item()
    assert number == 3 * count
    # Shares of 9,000 draws: the standard deviation is 0.004 and 0.003; a word replaced by itself is one in 58.
    assert hidden.sum().item() / number == pytest.approx(0.8, abs=0.02)
    assert (read != tokens).sum().item() / number == pytest.approx(0.1, abs=0.015)
    assert chosen.float().mean(dim=0)[1:11].tolist() == pytest.approx([0.3] * 10, abs=0.04)
    assert read.max() == VOCABULARY - 1
