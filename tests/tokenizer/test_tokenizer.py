"""The tokenizer's calls: shapes, limits, errors, huge texts."""

import pickle
import re
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diptych
from diptych.errors import SettingsError, TextError
from diptych.tokenizer import Tokenizer, bpe, tokenize

DOG = [49406, 320, 1929, 49407]


def test_rows_are_int32_padded_with_zeros(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["a dog", "", "a café"])
    assert ids.shape == (3, 77)
    assert ids.dtype == torch.int32
    assert ids[0].tolist() == DOG + [0] * 73
    assert ids[1].tolist() == [49406, 49407] + [0] * 75
    assert ids[2, :5].tolist() == [49406, 320, 15304, 49407, 0]


def test_ids_can_be_written_to(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["a dog"])
    ids[0, 0] = 7
    assert tokenizer(["a dog"])[0, 0] == 49406


def test_one_string_is_a_batch_of_one() -> None:
    assert torch.equal(diptych.tokenize("a dog"), tokenize(["a dog"]))
    assert diptych.tokenize("a dog", 8).tolist() == [DOG + [0] * 4]


def test_no_texts_give_no_rows(tokenizer: Tokenizer) -> None:
    assert tokenizer([]).shape == (0, 77)


def test_tuples_and_arrays_of_strings_are_texts(tokenizer: Tokenizer) -> None:
    expected = tokenizer(["a dog", "two cats"])
    assert torch.equal(tokenizer(("a dog", "two cats")), expected)
    assert torch.equal(tokenizer(np.array(["a dog", "two cats"])), expected)  # type: ignore[arg-type]


def test_a_text_that_just_fits_is_whole_and_one_more_is_an_error(tokenizer: Tokenizer) -> None:
    for word in ("dog", "日"):
        fits = " ".join([word] * (75 // len(tokenizer.encode(word))))
        row = tokenizer(fits)[0].tolist()
        ids = tokenizer.encode(fits)
        assert row == [49406, *ids, 49407] + [0] * (75 - len(ids))
        with pytest.raises(TextError):
            tokenizer(fits + " dog dog")


@pytest.mark.parametrize("word", ["dog", "café", "&eacute;", "1" * 40])
def test_truncation_keeps_the_first_ids_and_the_end_token(tokenizer: Tokenizer, word: str) -> None:
    text = " ".join([word] * 100)
    ids = tokenizer.encode(text)
    for length in (2, 3, 20, 77):
        row = tokenizer([text, "a dog"], context_length=length, truncate=True)[0].tolist()
        assert row == [49406, *ids[: length - 2], 49407]


def test_a_text_that_is_too_long_is_named_with_its_size_and_the_remedy(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError) as caught:
        tokenizer(["a dog", "one two three four"], context_length=5)
    assert str(caught.value) == (
        "texts[1] has 6 tokens with its start and end, but the model reads at most 5: 'one two three four'; "
        "shorten it (in Python, truncate=True cuts it)"
    )
    with pytest.raises(TextError, match=r"^text has more than 77 tokens .*: '(dog ){14}d'\.\.\.; shorten it"):
        tokenizer("dog " * 30_000)


@pytest.mark.parametrize("text", ["a dog \ud83d", "\ude00", "caf&eacute; \ud83d and \ude00"])
def test_half_a_surrogate_pair_is_an_error_that_says_where(tokenizer: Tokenizer, text: str) -> None:
    position = re.search("[\ud800-\udfff]", text)
    assert position is not None
    expected = rf"texts\[1\] is not valid Unicode: '\\u[0-9a-f]{{4}}' at character {position.start()} "
    for truncate in (False, True):
        with pytest.raises(TextError, match=expected) as caught:
            tokenizer(["fine", text], truncate=truncate)
        str(caught.value).encode()  # the message itself can be printed
    with pytest.raises(TextError, match="text is not valid Unicode"):
        tokenizer.encode(text)


def test_a_surrogate_pair_is_the_character_it_stands_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@pytest.mark.parametrize("value", [None, float("nan"), b"a dog", 7, ["a dog"]])
def test_what_is_no_string_is_an_error_that_names_it(tokenizer: Tokenizer, value: object) -> None:
    with pytest.raises(TextError, match=rf"texts\[1\] is .* \({type(value).__name__}\); expected a string"):
        tokenizer(["a dog", value])  # type: ignore[list-item]


def test_a_context_without_room_for_both_special_tokens_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(SettingsError, match="context_length is 1"):
        tokenizer("a dog", context_length=1)


def test_decoding_gives_the_cleaned_words_back(tokenizer: Tokenizer) -> None:
    for text in ("a photo of a dog", "Grüße aus İstanbul", "日本語 🎉", "a </w> b"):
        row = tokenizer(text)[0]
        decoded = tokenizer.decode(row)
        assert decoded == tokenizer.decode(tokenizer.encode(text))
        assert tokenizer.encode(decoded) == tokenizer.encode(text)
    assert tokenizer.decode(tokenizer("A photo of a Dog")[0]) == "a photo of a dog"


def test_decoding_half_a_letter_gives_the_replacement_character(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("ↂ")[:1]
    assert tokenizer.decode(half) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 49408])
def test_decoding_an_id_outside_the_vocabulary_is_an_error(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(TextError, match=f"cannot decode the id {token}"):
        tokenizer.decode([320, token])


def test_the_fingerprint_is_that_of_this_cleaning_and_these_merges(tokenizer: Tokenizer) -> None:
    assert tokenizer.fingerprint == "4aaa9859468903e0e30d7917fe97bdc98686b2c8002d282b9b377d7a4bd57348"


def test_a_pickled_tokenizer_carries_no_tables(tokenizer: Tokenizer) -> None:
    tokenizer("a dog")
    pickled = pickle.dumps(tokenizer)
    assert len(pickled) < 200
    assert torch.equal(pickle.loads(pickled)("a dog"), tokenizer("a dog"))


def test_the_kept_parts_are_bounded_and_dropping_them_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bpe._PackedParts, "most_parts", 10)
    small = Tokenizer()
    texts = [f"dog{i} café{i} {'x' * 70}{i}" for i in range(100)]
    assert torch.equal(small(texts, truncate=True), Tokenizer()(texts, truncate=True))
    assert len(small._parts) <= 10


def test_threads_share_one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe._PackedParts, "most_parts", 50)
    shared = Tokenizer()
    texts = [f"dog {i} café{i % 70} word{i}" for i in range(500)]
    expected = Tokenizer()(texts)
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(shared(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)


# About thirty times what any of these texts takes. Work that grew with the square of the length would take hours.
QUADRATIC_SECONDS = 30

TEN_MEGABYTES = {
    "captions": "a photo of a dog " * 590_000,
    "lines": "a photo of a dog\n" * 590_000,
    "one letter": "a" * 10_000_000,
    "digits": "12345" * 2_000_000,
    "ampersands": "&amp;" * 2_000_000,
    "escaped ampersand": "&" + "amp;" * 2_500_000,
    "Cyrillic words": "Привет мир " * 500_000,
    "emoji": "🎉 🙂" * 1_100_000,
    "mojibake": "cafÃ© voilÃ\xa0 " * 600_000,
    "combining marks": "é" + "\u0301\u0323 " * 2_000_000,
    "NUL": "\x00" * 10_000_000,
    "white space": " \t\r\n" * 2_500_000,
    "wide white space": "\u3000\n\ufeff" * 1_500_000,
    "bidi": "\u202eab\u202c " * 1_100_000,
}


@pytest.mark.parametrize("name", TEN_MEGABYTES)
def test_ten_megabytes_are_cut_in_linear_time(tokenizer: Tokenizer, name: str) -> None:
    text = TEN_MEGABYTES[name]
    assert 9_000_000 <= len(text.encode()) < 13_000_000
    started = time.process_time()
    row = tokenizer(text, truncate=True)[0].tolist()
    assert time.process_time() - started < QUADRATIC_SECONDS
    assert row[0] == 49406
    assert row.count(49407) == 1


@pytest.mark.parametrize("name", ["captions", "Cyrillic words", "emoji", "NUL", "one letter", "white space"])
def test_ten_megabytes_take_less_than_200_megabytes(tokenizer: Tokenizer, name: str) -> None:
    tokenizer("a dog")
    tracemalloc.start()
    tokenizer(TEN_MEGABYTES[name], truncate=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


@settings(max_examples=5_000, deadline=None, database=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=[]), max_size=120), st.integers(2, 90))
def test_any_text_gives_one_row_or_one_clear_error(text: str, context_length: int) -> None:
    if re.search("[\ud800-\udfff]", re.sub("[\ud800-\udbff][\udc00-\udfff]", "", text)):
        with pytest.raises(TextError, match="half of a surrogate pair"):
            tokenize(text, context_length, truncate=True)
        return
    row = tokenize(text, context_length, truncate=True)[0].tolist()
    assert len(row) == context_length
    assert row[0] == 49406
    end = row.index(49407)
    assert row[end + 1 :] == [0] * (context_length - end - 1)
    assert 49406 not in row[1:]
