"""What tasks ask of a model, and what they compute from the features of both sides."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.distributed import gather_rows, row_counts
from diptych.errors import SettingsError

_Kind = TypeVar("_Kind", bound=nn.Module)

_RANKED = 1024  # rows of a process whose accuracy is looked at


def of_kind(part: nn.Module, kind: type[_Kind], objective: str, remedy: str) -> _Kind:
    """Return a model, or its text side, which has to be of the kind that an objective trains.

    remedy: what the recipe says where it is.
    """
    if not isinstance(part, kind):
        raise SettingsError(
            f"[objective] {objective}: needs a {kind.__name__}, and found a {type(part).__name__}; set "
            f"[model.architecture] {remedy}"
        )
    return part


def unit(features: Tensor) -> Tensor:
    """Return features at unit length, in float32 at least. Zeros stay zeros, and get no gradient.

    A text without words is the zero vector to a new bag of words: its direction would change without bounds.
    """
    # Norms and similarities in float32: bfloat16 has three digits, and the temperature magnifies by 100.
    found = wide(features)
    return F.normalize(found.masked_fill((found == 0).all(dim=-1, keepdim=True), 0.0), dim=-1)


def wide(features: Tensor) -> Tensor:
    """Return features in float32 at least."""
    return features if features.dtype == torch.float64 else features.float()


def ranked_first(left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
    """Count the first 1,024 left rows that rank a right row of their group first among all processes' rows.

    left, right: (local, dim). groups: (local,), ids. Returns their count, (), and how many were looked at.
    """
    counts = row_counts(len(left), left.device)
    every_right, every_group = gather_rows(right, counts), gather_rows(groups, counts)
    ranked = left[:_RANKED]
    best = (ranked @ every_right.T).argmax(dim=1)
    return (every_group[best] == groups[:_RANKED]).sum(), len(ranked)


def guessed_words(known: tuple[int, ...], vocab_size: int) -> int:
    """Return the rows of a table of words, among which a model without knowledge guesses.

    With known words, the two ends of a text and one row for all other words are among them.
    """
    return len({*known, vocab_size - 2, vocab_size - 1}) + 1 if known else vocab_size
