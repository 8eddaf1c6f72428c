"""Texts with half of a character are read, and neither a tokenizer nor a table fails on them."""

import pytest

from diptych.data.example import example_from_record, parse_record, valid_unicode
from diptych.tokenizer import tokenize


def test_halves_of_surrogate_pairs_become_replacement_characters() -> None:
    record = parse_record(
        rb'{"caption": "a bicycle \ud83d", "captions": ["\ude00 red"], "tags": "\ud83dx, sea"}', "x.json"
    )
    example = example_from_record("x", b"", record, "x.json")
    assert example.captions == ("\ufffd red", "a bicycle \ufffd")
    assert example.tags == ("\ufffdx", "sea")
    assert tokenize(example.captions).shape == (2, 77)


def test_a_list_of_tags_is_mended_too() -> None:
    example = example_from_record("x", b"", {"tags": ["\ud83d", "sea"]}, "x.json")
    assert example.tags == ("\ufffd", "sea")


@pytest.mark.parametrize("text", ["", "a red bicycle", "ein grünes Rad", "\N{BICYCLE}\ue000\uffff\0"])
def test_valid_text_stays_as_it_is(text: str) -> None:
    assert valid_unicode(text) == text
