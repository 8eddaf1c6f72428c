"""A smaller table of words: which ids have rows, and that a model of it predicts the same as one over those words."""

import pytest
import torch

from diptych.models import architectures
from diptych.models.heads.captioner import Captioner
from diptych.models.heads.compact_vocabulary import CompactVocabulary
from diptych.models.heads.word_predictor import WordPredictor
from diptych.models.language_tower import LanguageTower
from diptych.models.text_transformer import TextTransformer
from diptych.objectives.vocabulary_softmax import log_likelihoods
from tests.models.small_models import CONTEXT, VOCABULARY, random_texts


def test_ids_have_rows_in_order_and_strangers_share_the_first() -> None:
    words = CompactVocabulary((7, 3, 12), VOCABULARY)
    assert words.rows == 6
    tokens = torch.tensor([[VOCABULARY - 2, 3, 12, 7, 8, VOCABULARY - 1, 0]], dtype=torch.int32)
    rows = words.rows_of(tokens)
    assert rows.tolist() == [[4, 1, 3, 2, 0, 5, 0]]
    assert rows.argmax().item() == tokens.argmax().item()  # the end token is found as before
    assert words.ids_of([4, 1, 3, 2, 0, 5]) == [VOCABULARY - 2, 3, 12, 7, VOCABULARY - 1]


def test_without_a_list_the_rows_are_the_ids() -> None:
    words = CompactVocabulary((), VOCABULARY)
    tokens = random_texts([5, 7])
    assert words.rows == VOCABULARY
    assert torch.equal(words.rows_of(tokens), tokens)
    assert words.ids_of([1, 2]) == [1, 2]


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 59"):
        CompactVocabulary((VOCABULARY,), VOCABULARY)


def test_a_captioner_of_all_words_and_one_that_lists_them_all_agree() -> None:
    sizes = [
        architectures.Captioner(
            decoder_layers=1, heads=2, context_length=CONTEXT, vocab_size=VOCABULARY, known=known
        )
        for known in ((), tuple(range(VOCABULARY)))
    ]
    every, listed = (Captioner(size, 16) for size in sizes)
    state = every.state_dict()
    state["token_embedding.weight"] = torch.cat([torch.zeros(1, 16), state["token_embedding.weight"]])
    state["output_bias"] = torch.cat(
        [torch.tensor([-1e9]), state["output_bias"]]
    )  # the stranger never occurs
    listed.load_state_dict(state)
    cells, tokens = torch.randn(3, 5, 16), random_texts([4, 9, 6])
    torch.testing.assert_close(listed.scores(cells, tokens), every.scores(cells, tokens))


def test_a_class_of_unknown_words_is_scored_as_the_stranger() -> None:
    size = architectures.WordPredictor(
        word_loss="softmax", context_length=CONTEXT, vocab_size=VOCABULARY, known=(3, 4)
    )
    head = WordPredictor(size, 6)
    assert head.table.shape == (5, 6)
    features = torch.randn(2, 6)
    tokens = torch.tensor([[VOCABULARY - 2, 30, 31, VOCABULARY - 1]])
    torch.testing.assert_close(head.scores(features, tokens)[:, 0], head(features)[:, 0])


def test_a_text_tower_of_few_words_embeds_and_predicts_them_as_one_of_all() -> None:
    known = (3, 9, 20, 41)
    sizes = [
        architectures.TextTransformer(
            width=16, layers=2, heads=2, context_length=CONTEXT, vocab_size=VOCABULARY, known=ids
        )
        for ids in ((), known)
    ]
    torch.manual_seed(0)
    every, few = (TextTransformer(size, 8, "gelu").double() for size in sizes)
    state = every.state_dict()
    rows = [0, *known, VOCABULARY - 2, VOCABULARY - 1]  # the stranger has the embedding of id 0 here
    state["token_embedding.weight"] = state["token_embedding.weight"][rows]
    few.load_state_dict(state)
    tokens = torch.tensor(
        [[VOCABULARY - 2, 9, 41, 3, VOCABULARY - 1, 0], [VOCABULARY - 2, 20, VOCABULARY - 1, 0, 0, 0]]
    )
    torch.testing.assert_close(few(tokens), every(tokens))
    with torch.no_grad():
        torch.testing.assert_close(few(tokens), every(tokens))
        stranger = tokens.clone()
        stranger[0, 2] = 50
        like_zero = tokens.clone()
        like_zero[0, 2] = 0
        torch.testing.assert_close(few(stranger), every(like_zero))
    surprise = LanguageTower(few, log_likelihoods)(tokens)[:, -1]
    states = few.tokens(tokens[:1, :5])[0, :-1]
    expected = torch.nn.functional.cross_entropy(
        states @ few.token_embedding.weight.T, few.words.rows_of(tokens)[0, 1:5]
    )
    torch.testing.assert_close(surprise[0], expected)
