"""Count the ids that a collection of texts uses: the `known` words of a model that predicts them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from diptych.tokenizer import default_tokenizer


@dataclass(frozen=True)
class Occurrence:
    """The ids in a collection of texts.

    known: ids that occur in enough texts, ascending. distinct: the number of different ids. covered: the fraction of
    all tokens that are known, 0..1.
    """

    known: tuple[int, ...]
    distinct: int
    covered: float


def ids_in(texts: Iterable[str], least: int = 1) -> Occurrence:
    """Count the ids that occur in at least `least` of the texts, without start and end token."""
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
