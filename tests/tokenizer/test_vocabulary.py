"""The table of merges, and words of any length."""

import gzip
import importlib.util
import random
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import pytest

from diptych.tokenizer import vocabulary
from diptych.tokenizer.vocabulary import Vocabulary, read_merges


@pytest.fixture(scope="module")
def table() -> Vocabulary:
    return Vocabulary()


def encoded_whole(table: Vocabulary, word: bytes) -> list[int]:
    """Byte-pair encoding as the original states it: over the whole word, merging the lowest rank first."""
    merges = table._merges
    single = {spelt: i for i, spelt in enumerate(table.token_bytes[:256])}
    symbols = [single[bytes([byte])] for byte in word]
    symbols[-1] += 256
    while True:
        ranks = [merges.get(pair, 10**9) for pair in pairwise(symbols)]
        if not ranks or min(ranks) == 10**9:
            return symbols
        out, i = [], 0
        while i < len(symbols):
            if i < len(ranks) and ranks[i] == min(ranks):
                out.append(min(ranks))
                i += 2
            else:
                out.append(symbols[i])
                i += 1
        symbols = out


def test_the_table_is_the_used_part_of_the_published_file() -> None:
    package = importlib.util.find_spec("clip")
    assert package is not None
    assert package.origin is not None
    published = gzip.decompress(Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes())
    assert read_merges().decode().splitlines() == published.decode().split("\n")[1 : 49152 - 256 - 2 + 1]


def test_there_are_49_406_distinct_tokens(table: Vocabulary) -> None:
    assert len(set(zip(table.token_bytes, table.ends_word, strict=True))) == len(table.token_bytes) == 49_406


def test_merges_only_use_tokens_of_lower_rank(table: Vocabulary) -> None:
    assert all(max(pair) < rank for pair, rank in table._merges.items())


def test_every_token_that_ends_a_word_is_what_its_spelling_is_merged_into(table: Vocabulary) -> None:
    ending = [i for i in range(49_406) if table.ends_word[i]]
    assert [i for i in ending if encoded_whole(table, table.token_bytes[i]) != [i]] == []


def words_to_cut(table: Vocabulary, count: int) -> list[bytes]:
    """Words where windows cut awkwardly: random letters, joined tokens, and short units repeated."""
    chance = random.Random(5)
    words = []
    for i in range(count):
        if i % 3 == 0:
            word = bytes(chance.choices(b"etaoinshrdlu", k=chance.randrange(1, 90)))
        elif i % 3 == 1:
            word = b"".join(chance.choices(table.token_bytes, k=chance.randrange(1, 25)))
        else:
            word = chance.choice(table.token_bytes) * chance.randrange(1, 30)
        words.append(word[: chance.randrange(1, len(word) + 1)])
    return words


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 13, 40])
def test_a_word_encoded_in_windows_equals_the_word_encoded_whole(
    monkeypatch: pytest.MonkeyPatch, table: Vocabulary, window: int
) -> None:
    monkeypatch.setattr(vocabulary, "_WINDOW", window)
    for word in words_to_cut(table, 400):
        assert list(table.encode_word(word)) == encoded_whole(table, word)


@pytest.mark.nightly
def test_many_words_encoded_in_windows_equal_the_words_encoded_whole(
    monkeypatch: pytest.MonkeyPatch, table: Vocabulary
) -> None:
    for word in words_to_cut(table, 20_000):
        for window in (1, 4, 16):
            monkeypatch.setattr(vocabulary, "_WINDOW", window)
            assert list(table.encode_word(word)) == encoded_whole(table, word)


@pytest.mark.parametrize(
    "make_word",
    [
        lambda chance: b"a" * 10_000_000,
        lambda chance: b"_-" * 5_000_000,
        lambda chance: "😂".encode() * 2_500_000,
        lambda chance: bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=1_000_000)),
    ],
)
def test_the_first_ids_of_a_huge_word_cost_little(
    table: Vocabulary, make_word: Callable[[random.Random], bytes]
) -> None:
    word = make_word(random.Random(6))
    started = time.process_time()
    ids = list(islice(table.encode_word(word), 100))
    assert time.process_time() - started < 30  # the whole word would take far longer
    assert word.startswith(b"".join(table.token_bytes[i] for i in ids))
    # The ids agree with a word that goes on differently much later.
    prefix = word[: 2 * sum(len(table.token_bytes[i]) for i in ids)]
    assert ids == encoded_whole(table, prefix)[:100]
