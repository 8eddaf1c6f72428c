"""CLIP's byte-pair tokenizer (Radford et al. 2021, section 2.4; the original is clip/simple_tokenizer.py).

A text is cleaned and split into words by a regular expression, and each word becomes one or more of 49,406 tokens. No
word contains white space, so the ids of a text are the joined ids of its parts between spaces. These are kept, packed
as bytes, in a dictionary. Most captions are printable ASCII without an ampersand, of which cleaning changes only case
and spaces: for them the work is a few calls that run in C.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt
import regex
import torch

from diptych.errors import SettingsError, TextError
from diptych.tokenizer.cleaning import CLEANING_VERSION, clean_pieces, lone_surrogate
from diptych.tokenizer.vocabulary import Vocabulary, read_merges

# The original expression without its special tokens: user text that spells one stays ordinary text. Matching ignores
# case although the text is in lower case, because the two differ for some letters: "'" and a long s is the
# contraction "'s".
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)

_ID = np.dtype(np.int32)
_START, _END = 49406, 49407

# Longer texts are read piece by piece, so that truncating a huge one is cheap.
_LONG_TEXT = 1_000
# The message about a text that is too long gives its number of tokens, up to this many characters.
_COUNTED_TEXT = 100_000


def _pack(ids: Iterable[int]) -> bytes:
    return np.fromiter(ids, dtype=_ID).tobytes()


def _unpack(packed: bytes | bytearray) -> npt.NDArray[np.int32]:
    return np.frombuffer(packed, dtype=_ID) if packed else np.empty(0, dtype=_ID)


def _is_plain(text: object) -> bool:
    """Return whether cleaning `text` only lowers its case and splits it at spaces."""
    return (
        isinstance(text, str)
        and len(text) <= _LONG_TEXT
        and text.isascii()
        and text.isprintable()
        and "&" not in text
    )


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise TextError(f"{name} is {_shortened(text)} ({type(text).__name__}); expected a string")
    position = lone_surrogate(text)
    if position is not None:
        raise TextError(
            f"{name} is not valid Unicode: {text[position]!r} at character {position} is half of a surrogate "
            f"pair, in {_shortened(text[max(0, position - 20) :])}; decode its bytes with errors='replace'"
        )


def _shortened(value: object) -> str:
    if not isinstance(value, str):
        value = repr(value)
        return value if len(value) <= 60 else value[:57] + "..."
    return repr(value) if len(value) <= 60 else repr(value[:57]) + "..."


class _PackedParts(dict[str, bytes]):
    """The ids of the parts of texts between spaces, computed at the first use and kept."""

    # Limits for a process that reads endless text: about 30 MB at most. Common parts return soon.
    most_parts = 1 << 17
    longest_part = 64

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, part: str) -> bytes:
        packed = _pack(self.ids(part))
        if len(part) <= self.longest_part:
            if len(self) >= self.most_parts:
                self.clear()
            self[part] = packed
        return packed

    def ids(self, part: str) -> Iterator[int]:
        """Yield the same ids one by one, for a part that may be huge."""
        for word in _WORDS.finditer(part):
            yield from self._vocabulary.encode_word(word.group().encode())


class Tokenizer:
    """Converts texts to ids and back. It is cheap to make and to pickle: the tables are read at the first text."""

    start_token = _START
    end_token = _END
    vocab_size = 49408

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the merges and of the version of the cleaning, in hexadecimal."""
        return hashlib.sha256(CLEANING_VERSION.encode() + b"\n" + read_merges()).hexdigest()

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary()

    @cached_property
    def _parts(self) -> _PackedParts:
        return _PackedParts(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Return all ids of `text`, without start and end token. Raises TextError as `__call__` does."""
        _check_text(text, "text")
        ids: list[int] = _unpack(b"".join(self._packed(text))).tolist()
        return ids

    def length(self, text: str) -> int:
        """Return the number of tokens of `text`, start and end token included. Raises TextError as `encode` does."""
        return len(self.encode(text)) + 2

    def decode(self, ids: Iterable[int]) -> str:
        """Return the cleaned text that `ids` spell, one space between words, up to the end token.

        The spaces of the original text are not in the ids ("it's" becomes "it 's"). Bytes that are not valid UTF-8,
        such as half a letter, become U+FFFD. Raises TextError for an id outside the vocabulary.
        """
        spelt = []
        for token in map(int, ids):
            if token == _END:
                break
            if token == _START:
                continue
            if not 0 <= token < _START:
                raise TextError(f"cannot decode the id {token}; expected an id from 0 to {_END}")
            space = b" " if self._vocabulary.ends_word[token] else b""
            spelt.append(self._vocabulary.token_bytes[token] + space)
        return b"".join(spelt).decode(errors="replace").removesuffix(" ")

    def __call__(
        self, texts: str | Sequence[str], *, context_length: int = 77, truncate: bool = False
    ) -> torch.Tensor:
        """Return the ids of one or several texts: (n, context_length), int32.

        Each row is the start token, the text's ids, the end token, then zeros. A text with more than
        `context_length` - 2 ids raises TextError, or, with `truncate`, loses its last ids.

        Raises TextError, which names the text, also for a value that is not a string and for half a surrogate pair.
        """
        if context_length < 2:
            raise SettingsError(
                f"context_length is {context_length}; expected at least 2, for the start and the end token"
            )
        if isinstance(texts, str):
            texts, name = [texts], "text"
        else:
            name = "texts[{}]"
        width = _ID.itemsize * context_length
        start, end = _pack([_START]), _pack([_END])
        part = self._parts.__getitem__
        rows = []
        for i, text in enumerate(texts):
            if _is_plain(text):
                row = b"".join([start, *map(part, text.lower().split()), end])
            else:
                _check_text(text, name.format(i))
                row = b"".join([start, self._packed_up_to(text, context_length - 1), end])
            if len(row) > width:
                if not truncate:
                    raise TextError(self._too_long(text, name.format(i), context_length))
                row = row[: width - len(end)] + end
            rows.append(row.ljust(width, b"\0"))
        return torch.from_numpy(_unpack(bytearray().join(rows)).reshape(len(rows), context_length))

    def _packed(self, text: str) -> Iterator[bytes]:
        """Yield the ids of `text` in packed runs, lazily."""
        for piece in clean_pieces(text):
            for part in piece.split(" "):
                if len(part) <= self._parts.longest_part:
                    yield self._parts[part]
                else:
                    ids = self._parts.ids(part)
                    while run := _pack(islice(ids, 256)):
                        yield run

    def _packed_up_to(self, text: str, count: int) -> bytes:
        """Return at least `count` ids of `text`, packed, or all of them if there are fewer."""
        runs = []
        missing = _ID.itemsize * count
        for run in self._packed(text):
            runs.append(run)
            missing -= len(run)
            if missing <= 0:
                break
        return b"".join(runs)

    def _too_long(self, text: str, name: str, context_length: int) -> str:
        countable = len(text) <= _COUNTED_TEXT
        size = f"{self.length(text)} tokens" if countable else f"more than {context_length} tokens"
        return (
            f"{name} has {size} with its start and end, but the model reads at most {context_length}: "
            f"{_shortened(text)}; shorten it (in Python, truncate=True cuts it)"
        )
