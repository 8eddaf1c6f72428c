"""The text tower as a language model: its embedding is the tower's, its surprise that of each word by the library."""

import math

import pytest
import torch
import torch.nn.functional as F

from diptych.models.language_tower import LanguageTower
from diptych.objectives.vocabulary_softmax import log_likelihoods
from tests.models.small_models import TEXT_TOWERS, VOCABULARY, random_texts, small_model, text_transformer_of

LENGTHS = [5, 12, 2, 8]


@pytest.mark.parametrize("text", [name for name in TEXT_TOWERS if name != "bag-of-words"])
def test_embedding_is_the_towers_and_surprise_is_the_librarys_cross_entropy(text: str) -> None:
    tower = text_transformer_of(small_model("vit", text))
    tokens = random_texts(LENGTHS)
    found = LanguageTower(tower, log_likelihoods)(tokens)
    torch.testing.assert_close(found[:, :-1], tower(tokens))
    table = tower.token_embedding.weight
    for row, length in enumerate(LENGTHS):
        states = tower.tokens(tokens[row : row + 1, :length])[0, :-1]
        if tower.embedding_projection is not None:
            states = states @ tower.embedding_projection.weight
        expected = F.cross_entropy(states @ table.T, tokens[row, 1:length])
        torch.testing.assert_close(found[row, -1], expected)


def test_padding_is_not_predicted_and_a_word_changes_no_surprise_before_it() -> None:
    tower = LanguageTower(text_transformer_of(small_model()), log_likelihoods)
    tokens = random_texts([6, 6])
    padded = tokens.clone()
    padded[:, 6:] = 9
    torch.testing.assert_close(tower(padded), tower(tokens), rtol=0, atol=0)


def test_an_untrained_tower_is_about_as_surprised_as_by_guessing() -> None:
    tower = text_transformer_of(small_model())
    with torch.no_grad():
        found = LanguageTower(tower, log_likelihoods)(random_texts([12] * 8))[:, -1]
    assert found.mean().item() == pytest.approx(math.log(VOCABULARY), rel=0.05)
