import torch

from diptych.tokenizer import default_tokenizer, tokenize
from diptych.tokenizer.mirroring import exchange_sides


def test_left_and_right_are_exchanged_as_words_and_twice_is_the_identity() -> None:
    texts = ["A man on the LEFT of a left-handed, right shoe", "leftover bright upright cleft", "the right."]
    tokens = tokenize(texts, 32)
    turned = exchange_sides(tokens)
    assert [default_tokenizer().decode(row) for row in turned.tolist()] == [
        "a man on the right of a right - handed , left shoe",
        "leftover bright upright cleft",
        "the left .",
    ]
    assert torch.equal(exchange_sides(turned), tokens)
    assert turned.dtype == tokens.dtype
