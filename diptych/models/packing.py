"""A batch of texts without its padding and without its repetitions, for the causal tower.

A caption has about a dozen tokens and a batch is as wide as its longest, so most of a padded batch is padding. And
texts begin alike: all share the start token, prompts share "a photo of". Through a causal mask a token depends on
those before it alone, so that equal beginnings have equal values. The packed batch is one row for each distinct
beginning; everything but attention works on rows, and attention on small groups of texts of similar length.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_GROUP = 16  # texts that attend together: enough to keep the kernel busy, few enough to be of similar length


@dataclass(frozen=True)
class _Group:
    """Texts that attend together, padded to the longest of them."""

    rows: Tensor  # (texts, tokens): where each token's row is; anything behind the end token
    writes: Tensor  # places in the flattened `rows` of the tokens that are the first of their row
    to: Tensor  # the rows that these tokens write


@dataclass(frozen=True)
class Packing:
    """The rows of a batch of texts, and how the texts attend through them."""

    tokens: Tensor  # (rows,) ids
    positions: Tensor  # (rows,) place in the text
    ends: Tensor  # (batch,) the row of each text's end token
    groups: tuple[_Group, ...]

    def attend(self, projected: Tensor, heads: int) -> Tensor:
        """Causal attention of every row to its beginning.

        projected: (rows, 3 * width), queries, keys and values; returns (rows, width).
        """
        rows, width = projected.shape[0], projected.shape[1] // 3
        mixed = projected.new_empty(rows, width)
        for group in self.groups:
            texts, tokens = group.rows.shape
            parts = projected[group.rows].view(texts, tokens, 3, heads, width // heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (texts, heads, tokens, width / heads)
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            mixed[group.to] = seen.transpose(1, 2).reshape(texts * tokens, width)[group.writes]
        return mixed


def pack(tokens: Tensor) -> Packing:
    """tokens: (batch, up to context_length) ids, the largest of each row its end token."""
    end = tokens.argmax(dim=1)
    place = torch.arange(int(end.max()) + 1, device=tokens.device)
    used = tokens[:, : len(place)].masked_fill(place > end[:, None], 0)
    # `unique` sorts the texts, so that equal beginnings lie together.
    texts, number = torch.unique(used, dim=0, return_inverse=True)
    end = texts.argmax(dim=1)
    inside = place <= end[:, None]
    # A token opens a row where the text above has ended, or has had another token up to here.
    parted = torch.ones_like(inside)
    parted[1:] = (texts[1:] != texts[:-1]) | ~inside[:-1]
    opens = inside & (parted.cumsum(dim=1) > 0)
    row = (opens.flatten().cumsum(dim=0) - 1).view_as(opens)
    row = row.masked_fill(~opens, 0).cummax(dim=0).values  # otherwise it has the row of the text above
    groups = []
    for members in end.argsort().split(_GROUP):
        length = int(end[members[-1]]) + 1
        rows, first = row[members, :length], opens[members, :length]
        groups.append(_Group(rows=rows, writes=first.flatten().nonzero()[:, 0], to=rows[first]))
    return Packing(
        tokens=texts[opens],
        positions=place.expand_as(opens)[opens],
        ends=row.gather(1, end[:, None])[:, 0][number],
        groups=tuple(groups),
    )
