"""Encode one word with CLIP's table of 48,894 merges (byte-pair encoding).

The table is the used part of `bpe_simple_vocab_16e6.txt.gz` of github.com/openai/CLIP (MIT). It numbers the tokens:
0..255 the single bytes, 256..511 the same bytes at the end of a word, then one token per merge in the order of the
file. So the id of a merge is also its rank, and a merge can only use tokens of lower rank.
"""

import gzip
import sys
from collections.abc import Iterator
from importlib import resources
from itertools import pairwise

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that Latin-1 shows
_NEVER = sys.maxsize  # the rank of a pair without a merge

# Words are encoded whole up to this many bytes, longer ones window by window (see `Vocabulary.encode_word`): encoding
# whole takes time quadratic in the length.
_WINDOW = 128


def read_merges() -> bytes:
    """Read the bundled table: one merge per line, two tokens divided by a space, in order of rank."""
    return gzip.decompress(resources.files(__package__).joinpath("bpe_merges.txt.gz").read_bytes())


def _bytes_in_token_order() -> list[int]:
    """Return the byte of each of the tokens 0..255: the printable ones of Latin-1 come first."""
    return [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]


def byte_names() -> list[str]:
    """Return the names in the table of the tokens 0..255; those of the tokens 256..511 have `</w>` behind them.

    The table spells every byte as a visible character: the printable ones of Latin-1 as themselves, and the others, in
    order, as the characters from U+0100.
    """
    return [*map(chr, _PRINTABLE), *map(chr, range(256, 512 - len(_PRINTABLE)))]


class Vocabulary:
    """The tokens and merges of CLIP.

    `token_bytes[i]` is the spelling of token i; `ends_word[i]` says whether a word ends with it.
    """

    def __init__(self) -> None:
        order = _bytes_in_token_order()
        spelling = byte_names()
        self.token_bytes = [bytes([byte]) for byte in order] * 2
        self.ends_word = [False] * 256 + [True] * 256
        self._merges: dict[tuple[int, int], int] = {}
        names = {name: i for i, name in enumerate(spelling + [f"{name}</w>" for name in spelling])}
        for rank, line in enumerate(read_merges().decode().splitlines(), start=512):
            first, _, second = line.partition(" ")
            left, right = names[first], names[second]
            names[first + second] = self._merges[left, right] = rank
            self.token_bytes.append(self.token_bytes[left] + self.token_bytes[right])
            self.ends_word.append(self.ends_word[right])
        self._of_byte = [0] * 256
        for i, byte in enumerate(order):
            self._of_byte[byte] = i
        self._inner: dict[bytes, int] = {}
        self._ending: dict[bytes, int] = {}
        for i, (spelt, ends) in enumerate(zip(self.token_bytes, self.ends_word, strict=True)):
            (self._ending if ends else self._inner)[spelt] = i
        self._longest = max(map(len, self.token_bytes))

    def encode_word(self, word: bytes) -> Iterator[int]:
        """Yield the ids of one word (not empty), lazily: the cost of the first k ids does not grow with the word.

        The encoding repeatedly merges the adjacent pair of lowest rank. A long word is encoded window by window:
        `_final_tokens` finds ids that nothing behind the window can change. The rest is then a word of its own,
        because no merge crosses the end of a final token.
        """
        start, window = 0, _WINDOW
        while len(word) - start > window:
            settled = self._final_tokens(word, start, start + window)
            if not settled:
                window *= 2
                continue
            yield from settled
            start += sum(len(self.token_bytes[i]) for i in settled)
            window = _WINDOW
        rest = word[start:]
        # The spelling of every token that ends a word is merged into that token (tested for all of them).
        if (whole := self._ending.get(rest)) is not None:
            yield whole
            return
        symbols = [self._of_byte[byte] for byte in rest]
        symbols[-1] += 256
        while (best := self._lowest_merge(symbols)) != _NEVER:
            symbols = self._merge(symbols, best)
        yield from symbols

    def _lowest_merge(self, symbols: list[int]) -> int:
        get = self._merges.get
        return min((get(pair, _NEVER) for pair in pairwise(symbols)), default=_NEVER)

    def _merge(self, symbols: list[int], rank: int) -> list[int]:
        """Return `symbols` with every pair of merge `rank` replaced by its token, from left to right."""
        get = self._merges.get
        out: list[int] = []
        i, last = 0, len(symbols) - 1
        while i <= last:
            if i < last and get((symbols[i], symbols[i + 1])) == rank:
                out.append(rank)
                i += 2
            else:
                out.append(symbols[i])
                i += 1
        return out

    def _final_tokens(self, word: bytes, start: int, stop: int) -> list[int]:
        """Return the leading tokens of word[start:] that word[start:stop] alone decides; stop < len(word).

        Merges happen in order of rank, because a merge can only use tokens of lower rank. The text behind the window
        affects it in one way only: the last symbol of the window may merge with the symbol that follows. `rival` is
        the lowest remaining rank at which that could happen, over every token that the following text could begin
        with. Up to that rank the window evolves by itself. At that rank the last symbol becomes uncertain and is
        dropped, and the border moves one symbol to the left. The symbols that remain after the last merge are final.
        """
        symbols = [self._of_byte[byte] for byte in word[start:stop]]
        done = -1  # all merges up to this rank have been made
        while symbols:
            best = self._lowest_merge(symbols)
            rival = self._lowest_merge_over(symbols[-1], word, stop, done)
            if rival == best == _NEVER:
                return symbols
            done = min(best, rival)
            last = symbols[-1]
            if best <= rival:
                symbols = self._merge(symbols, best)
            # On equal ranks the known pairs come first (left to right); a last symbol that they used is safe.
            if rival <= best and symbols[-1] == last:
                symbols.pop()
                stop -= len(self.token_bytes[last])
        return []

    def _lowest_merge_over(self, symbol: int, word: bytes, stop: int, above: int) -> int:
        """Return the lowest rank over `above` that merges `symbol`, which ends at `stop`, with a token that follows."""
        best = _NEVER
        for end in range(stop + 1, min(stop + self._longest, len(word)) + 1):
            follower = (self._inner if end < len(word) else self._ending).get(word[stop:end], -1)
            rank = self._merges.get((symbol, follower), _NEVER)
            if above < rank < best:
                best = rank
        return best
