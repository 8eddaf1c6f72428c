"""Which ids a collection of texts uses: the `known` words of a model that predicts them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from diptych.tokenizer import default_tokenizer


@dataclass(frozen=True)
class Occurrence:
    """known: ids that occur in enough texts, ascending. distinct: how many occur at all. covered: share of all tokens
    that the known ones are, 0..1.
    """

    known: tuple[int, ...]
    distinct: int
    covered: float


def ids_in(texts: Iterable[str], least: int = 1) -> Occurrence:
    """The ids of at least `least` of the texts, start and end token aside."""
    encode = default_tokenizer().encode
    holders: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    for text in texts:
        ids = encode(text)
        tokens.update(ids)
        holders.update(set(ids))
    known = tuple(sorted(number for number, count in holders.items() if count >= least))
    covered = sum(tokens[number] for number in known) / max(1, tokens.total())
    return Occurrence(known, len(tokens), covered)
