"""Cleaning, against the original's function over ftfy."""

import html
import itertools
import time
import unicodedata
from collections.abc import Callable

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.tokenizer import bpe, cleaning
from diptych.tokenizer.cleaning import clean, clean_pieces, lone_surrogate

PLAIN = [chr(i) for i in [*range(32, 127), *b"\t\n\f\r"] if chr(i) != "&"]


def original_clean(text: str, segment: int = 1_000_000) -> str:
    fixed = ftfy.fix_text(text, max_decode_length=segment)
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


def test_plain_text_is_only_lowered_and_respaced() -> None:
    for pair in itertools.product(PLAIN, repeat=2):
        text = "".join(pair)
        assert original_clean(text) == clean(text) == " ".join(text.lower().split())


@settings(max_examples=2_000, deadline=None, database=None, derandomize=True)
@given(st.text(st.sampled_from(PLAIN), max_size=300))
def test_any_plain_text_is_only_lowered_and_respaced(text: str) -> None:
    assert original_clean(text) == clean(text) == " ".join(text.lower().split())


FREE = [chr(i) for i in range(0x10000) if cleaning._CONTEXT_FREE.fullmatch(chr(i))]


def test_lines_that_need_no_context_can_be_cleaned_together() -> None:
    assert len(FREE) == 127 + 29
    for pair in itertools.product(FREE, repeat=2):
        assert clean("a" + "".join(pair) + "b") == original_clean("a" + "".join(pair) + "b")


@settings(max_examples=2_000, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.text(st.sampled_from([*FREE, *"\x1b[m\r"]), max_size=20), max_size=8),
    st.text("é&<;\nltÃ© "),
)
def test_any_lines_that_need_no_context_are_cleaned_as_the_original_does(
    lines: list[str], other: str
) -> None:
    text = "\n".join([*lines, other, *lines])
    assert clean(text) == original_clean(text)


@pytest.mark.parametrize("character", [chr(i) for i in range(0x180)])
def test_only_text_that_cleaning_leaves_alone_takes_the_short_way(character: str) -> None:
    for text in (character, f"a{character}b", f"&{character};", f"{character} C"):
        if bpe._is_plain(text):
            assert original_clean(text) == " ".join(text.lower().split())
    assert bpe._is_plain(character) == (" " <= character <= "~" and character != "&")


def test_dirty_text_is_cleaned_as_the_original_does(make_texts: Callable[[int, int], list[str]]) -> None:
    for text in make_texts(5_000, 3):
        assert clean(text) == original_clean(text)


def test_pieces_and_segments_of_any_size_give_the_same_text(
    monkeypatch: pytest.MonkeyPatch, make_texts: Callable[[int, int], list[str]]
) -> None:
    texts = ["\n".join(group) for group in zip(*[iter(make_texts(4_000, 4))] * 4, strict=True)]
    for piece, segment in ((1, 1_000_000), (16, 1_000_000), (16, 40)):
        monkeypatch.setattr(cleaning, "_PIECE", piece)
        monkeypatch.setattr(cleaning, "_SEGMENT", segment)
        for text in texts:
            assert clean(text) == original_clean(text, segment)


def test_the_first_piece_of_a_huge_text_reads_one_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    fixed = cleaning._fixed

    def counting(text: str, unescape: bool) -> str:
        read.append(len(text))
        return fixed(text, unescape)

    monkeypatch.setattr(cleaning, "_fixed", counting)
    piece = next(clean_pieces("Привет мир " * 500_000))
    assert read == [1_000_000]
    assert cleaning._PIECE - 12 < len(piece) <= cleaning._PIECE


# Some twenty times what these texts take. Work that grew with the square of the length would take far longer.
QUADRATIC_SECONDS = 60


def test_ampersands_escaped_a_quarter_million_times_are_cleaned_in_linear_time() -> None:
    started = time.process_time()
    assert clean("&" + "amp;" * 249_999) == "&"
    assert clean("&" + "#38;amp;" * 124_999 + "lt;") == "<"
    assert time.process_time() - started < QUADRATIC_SECONDS


def test_a_run_of_a_million_combining_marks_is_cleaned_in_linear_time() -> None:
    started = time.process_time()
    cleaned = clean("e" + "\u0301\u0323" * 300_000)
    assert cleaned == "\u1eb9" + "\u0323" * 299_999 + "\u0301" * 300_000
    hidden = clean("e" + "\u0301\x00\u0323\x00" * 100_000)
    assert hidden == "\u1eb9" + "\u0323" * 99_999 + "\u0301" * 100_000
    assert time.process_time() - started < QUADRATIC_SECONDS


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.text("ae\u0301\u0323\u0327\u0344\u0f73\u0f71\u3099\u20dd\u0488か", min_size=1, max_size=12))
def test_long_runs_of_marks_are_normalised_as_the_original_does(unit: str) -> None:
    text = unit * 30 + "\u0301\u0323\u0f73" * 40 + unit
    assert clean(text) == original_clean(text)
    assert unicodedata.is_normalized("NFC", cleaning._fixed(text, True))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("plain", None),
        ("é", None),
        ("\ud83d\ude00", None),
        ("ab\ud83d", 2),
        ("abc\ude00", 3),
        ("\ud83d\ud83d\ude00", 0),
        ("\ud83d\ude00\ude00", 2),
        ("é\ude00\ud83d", 1),
    ],
)
def test_half_a_surrogate_pair_is_found(text: str, position: int | None) -> None:
    assert lone_surrogate(text) == position
