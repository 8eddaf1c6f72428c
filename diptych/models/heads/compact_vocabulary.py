"""A vocabulary of the words that a collection has, where an output layer over all 49,408 would be most of the work."""

from collections.abc import Sequence

import torch
from torch import Tensor


class CompactVocabulary:
    """Ids of the tokenizer to rows of a smaller table, and back.

    known: ids that have rows; the start and the end token, the last two of the tokenizer, always do. Row 0 is every
    other id. If `known` is empty, the rows are the ids. Order is kept, so that the end token has the largest row.
    """

    def __init__(self, known: Sequence[int], vocab_size: int) -> None:
        self._ids = sorted({*known, vocab_size - 2, vocab_size - 1}) if known else []
        if self._ids and not 0 <= self._ids[0] <= self._ids[-1] < vocab_size:
            raise ValueError(f"known: expected ids from 0 to {vocab_size - 1}")
        self.rows = len(self._ids) + 1 if known else vocab_size

    def rows_of(self, tokens: Tensor) -> Tensor:
        """Return the rows of ids of any shape, int64 where the vocabulary is a part."""
        if not self._ids:
            return tokens
        ids = torch.tensor(self._ids, device=tokens.device)
        position = torch.searchsorted(ids, tokens.long().contiguous()).clamp(max=len(ids) - 1)
        return torch.where(ids[position] == tokens, position + 1, 0)

    def ids_of(self, rows: Sequence[int]) -> list[int]:
        """Return the ids of some rows, without those that are not known."""
        return [self._ids[row - 1] for row in rows if row > 0] if self._ids else list(rows)
