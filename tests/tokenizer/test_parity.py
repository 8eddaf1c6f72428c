# ruff: noqa: RUF001 - letters that look alike are what is tested
"""Equality with OpenAI's own tokenizer, and the places where Diptych differs on purpose."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from diptych.tokenizer import Tokenizer

Encode = Callable[[str], list[int]]
MakeTexts = Callable[[int, int], list[str]]


def is_dirty(text: str) -> bool:
    return not text.isascii() or not text.isprintable() or "&" in text


def assert_equal_ids(tokenizer: Tokenizer, reference_encode: Encode, texts: list[str]) -> None:
    different = [text for text in texts if tokenizer.encode(text) != reference_encode(text)]
    assert different == []
    # The batch call has a path of its own for plain text: its rows must hold the same ids.
    rows = tokenizer(texts, context_length=77, truncate=True).tolist()
    for text, row in zip(texts, rows, strict=True):
        ids = tokenizer.encode(text)[:75]
        assert row == [49406, *ids, 49407] + [0] * (75 - len(ids))


def test_20_000_strings_half_of_them_dirty_equal_the_original(
    tokenizer: Tokenizer, reference_encode: Encode, make_texts: MakeTexts
) -> None:
    texts = make_texts(20_000, 1)
    assert sum(map(is_dirty, texts)) >= 0.4 * len(texts)
    assert_equal_ids(tokenizer, reference_encode, texts)


@pytest.mark.nightly
def test_100_000_strings_half_of_them_dirty_equal_the_original(
    tokenizer: Tokenizer, reference_encode: Encode, make_texts: MakeTexts
) -> None:
    texts = make_texts(100_000, 2)
    assert sum(map(is_dirty, texts)) >= 0.4 * len(texts)
    assert_equal_ids(tokenizer, reference_encode, texts)


def test_every_character_of_the_basic_plane_and_the_emoji_equals_the_original(
    tokenizer: Tokenizer, reference_encode: Encode
) -> None:
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x1FB00)]
    texts = ["x ".join(map(chr, codes[i : i + 64])) for i in range(0, len(codes), 64)]
    assert_equal_ids(tokenizer, reference_encode, texts)


@settings(
    max_examples=3_000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_without_surrogates_equals_the_original(
    tokenizer: Tokenizer, reference_encode: Encode, text: str
) -> None:
    assume("<|" not in text)
    assert tokenizer.encode(text) == reference_encode(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("hello world", [3306, 1002]),
        ("a diagram", [320, 22697]),
        ("it's 2021! 12345", [585, 568, 273, 271, 273, 272, 256, 272, 273, 274, 275, 276]),
        ("日本語", [39121, 44353, 34002, 508]),
        (
            "A Photo  of\n the Café &amp; bar's 3rd 🎉",
            [320, 1125, 539, 518, 15304, 261, 2411, 568, 274, 1973, 3986],
        ),
        ("", []),
    ],
)
def test_published_ids(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer.encode(text) == ids


LONG_TEXTS = {
    "captions in one line": "A photo of a dog, two cats & 3 birds. " * 32_000,
    "captions in lines": "It's a photo\r\nof the Café&amp;Bar №5\n" * 8_000,
    "markup after entities": "caf&eacute; &lt; \n" * 6_000 + "<b> &eacute; caf&amp;eacute;\n" * 6_000,
    "Cyrillic in one line": "Привет, мир! ΣΑΣ " * 70_000,
    "Chinese in one word": "日本語の" * 30_000,
    "emoji in one word": "🎉🙂" * 20_000,
    "mojibake": "voilÃ\xa0 le cafÃ© â€œici\x9d ” " * 5_000,
    "digits": "1234567890" * 20_000,
    "punctuation": "!?-_" * 20_000,
    "NUL": "a\x00b \x00" * 30_000,
    "bidi": "\u202eabc\u202c \u2067שלום\u2069 " * 8_000,
    "white space": " \t\r\n\u3000" * 60_000,
    "one letter": "a" * 200_000,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_long_text_equals_the_original(tokenizer: Tokenizer, reference_encode: Encode, name: str) -> None:
    assert_equal_ids(tokenizer, reference_encode, [LONG_TEXTS[name]])


@pytest.mark.nightly
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_text_of_ten_megabytes_equals_the_original(
    tokenizer: Tokenizer, reference_encode: Encode, name: str
) -> None:
    text = LONG_TEXTS[name]
    text *= 10_000_000 // len(text.encode()) + 1
    ids = [49406, *reference_encode(text)[:75], 49407]
    assert tokenizer(text, truncate=True)[0].tolist() == ids + [0] * (77 - len(ids))


@pytest.mark.parametrize("times", [1, 15, 16, 17, 40])
def test_an_ampersand_escaped_many_times_over_equals_the_original(
    tokenizer: Tokenizer, reference_encode: Encode, times: int
) -> None:
    escaped = "caf&" + "amp;" * times + "eacute; &" + "#38;" * times + "lt;"
    for text in (escaped, "<b>" + escaped, "Ã© " + escaped, escaped + "\n<b>\n" + escaped):
        assert tokenizer.encode(text) == reference_encode(text)


# Where Diptych differs from the original.


@pytest.mark.parametrize("spelling", ["<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "a<|endoftext|>b"])
def test_a_spelt_special_token_stays_ordinary_text(
    tokenizer: Tokenizer, reference_encode: Encode, spelling: str
) -> None:
    assert {49406, 49407} & set(reference_encode(spelling))
    ids = tokenizer.encode(spelling)
    assert not {49406, 49407} & set(ids)
    assert tokenizer.decode(ids).replace(" ", "") == spelling.lower()
    row = tokenizer(spelling)[0].tolist()
    assert row[: len(ids) + 2] == [49406, *ids, 49407]
    assert row[len(ids) + 2 :] == [0] * (75 - len(ids))


@pytest.mark.parametrize(
    "escaped", ["&lt;|endoftext|&gt;", "＜|endoftext|＞", "<|\x00endoftext|>", "&#60;|endoftext|>"]
)
def test_a_special_token_that_only_cleaning_spells_stays_ordinary_text(
    tokenizer: Tokenizer, reference_encode: Encode, escaped: str
) -> None:
    assert reference_encode(escaped) == [49407]
    assert tokenizer.encode(escaped) == tokenizer.encode("<|endoftext|>")


def test_letters_that_only_fold_to_a_special_token_are_split_as_ordinary_text(
    tokenizer: Tokenizer, reference_encode: Encode
) -> None:
    # The long s folds to s, so the original takes this for one word, though not for its start token.
    text = "<|ſtartoftext|>"
    assert reference_encode(text) != tokenizer.encode(text)
    apart = [*reference_encode("<|"), *reference_encode("ſtartoftext"), *reference_encode("|>")]
    assert tokenizer.encode(text) == apart
