"""A batch of texts without its padding and without its repetitions, for the causal tower.

A caption has about a dozen tokens and a batch is as wide as its longest, so most of a padded batch is padding. And
texts begin alike: all share the start token, prompts share "a photo of". Through a causal mask a token depends on
those before it alone, so that equal beginnings have equal values. The packed batch is one row for each distinct
beginning: the tree of the texts, whose rows stand in the order in which a walk through it meets them.

Everything but attention works on rows. Attention works on stretches of consecutive rows: what these have in their
past is the path from the root to the first of them, and rows of the stretch itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_STRETCH = 32  # rows that attend together: more of them pair up with more rows that they do not see; measured


@dataclass(frozen=True)
class Packing:
    """The rows of a batch of texts, and how they attend to each other."""

    tokens: Tensor  # (rows,) ids
    positions: Tensor  # (rows,) position in the text
    ends: Tensor  # (batch,) the row of each text's end token
    queries: Tensor  # (stretches, size) all rows in order; the last one again where the last stretch is short
    keys: Tensor  # (stretches, keys) every row that a stretch may see
    seen: Tensor  # (stretches, size, keys) whether a row sees it

    def attend(self, projected: Tensor, heads: int) -> Tensor:
        """Causal attention of every row to its beginning.

        projected: (rows, 3 * width), queries, keys and values; returns (rows, width).
        """
        rows, width = projected.shape[0], projected.shape[1] // 3
        part = width // heads
        query = projected[:, :width].index_select(0, self.queries.flatten())
        query = query.view(*self.queries.shape, heads, part).transpose(1, 2)
        pair = projected[:, width:].index_select(0, self.keys.flatten())
        key, value = pair.view(*self.keys.shape, 2, heads, part).permute(2, 0, 3, 1, 4)
        # Each is (stretches, heads, rows, width / heads).
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self.seen[:, None])
        return mixed.transpose(1, 2).reshape(-1, width)[:rows]


def positions_of_largest(tokens: Tensor) -> Tensor:
    """Where the largest id of each row stands, which is the end token in CLIP's vocabulary: (batch,)."""
    return tokens.argmax(dim=1)


def pack(tokens: Tensor, find_ends: Callable[[Tensor], Tensor] = positions_of_largest) -> Packing:
    """tokens: (batch, up to context_length) ids. find_ends: gives the position of each row's end token, (batch,)."""
    end = find_ends(tokens)
    column = torch.arange(int(end.max()) + 1, device=tokens.device)
    used = tokens[:, : len(column)].masked_fill(column > end[:, None], 0)
    # `unique` sorts the texts, so that equal beginnings lie together.
    texts, number = torch.unique(used, dim=0, return_inverse=True)
    end = find_ends(texts)
    inside = column <= end[:, None]
    # A token opens a row where the text above has ended, or has had another token up to here.
    parted = torch.ones_like(inside)
    parted[1:] = (texts[1:] != texts[:-1]) | ~inside[:-1]
    opens = inside & (parted.cumsum(dim=1) > 0)
    row = (opens.flatten().cumsum(dim=0) - 1).view_as(opens)
    row = row.masked_fill(~opens, 0).cummax(dim=0).values  # otherwise it has the row of the text above
    ends = row.gather(1, end[:, None])
    # The rows behind a row, up to the end of the last text that goes through it, have it in their past.
    last = column.new_zeros(int(ends[-1]) + 1)
    last.scatter_reduce_(0, row[inside], ends.expand_as(row)[inside], "amax")
    text, position = opens.nonzero().unbind(1)
    queries, keys, seen = _stretches(row[text], position, last)
    return Packing(
        tokens=texts[opens],
        positions=position,
        ends=ends[number, 0],
        queries=queries,
        keys=keys,
        seen=seen,
    )


def _stretches(path: Tensor, position: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`Packing.queries`, `keys` and `seen`.

    path: (rows, tokens) the rows of a text that goes through each row, which is its `position`-th (rows,);
    last: (rows,) the last one that has a row in its past.
    """
    rows = len(path)
    start = torch.arange(0, rows, _STRETCH, device=path.device)
    stretch = start[:, None] + torch.arange(min(_STRETCH, rows), device=path.device)
    queries = stretch.clamp(max=rows - 1)
    above = torch.arange(int(position[start].max()), device=path.device)
    keys = torch.cat((path[start, : len(above)], queries), dim=1)
    exists = torch.cat((above < position[start, None], stretch < rows), dim=1)
    query, key = queries[:, :, None], keys[:, None]
    return queries, keys, exists[:, None] & (key <= query) & (query <= last[key])


def order_of_batches(tokens: Tensor, device: torch.device) -> Tensor:
    """The order (texts,) in which consecutive batches of these texts are the least work on this device.

    On a CPU texts that begin alike come together, and are packed; elsewhere texts of like length do, since a
    batch runs up to its longest.
    """
    end = tokens.argmax(dim=1)
    if device.type != "cpu" or not len(tokens):
        return end.argsort(stable=True)
    used = tokens[:, : int(end.max()) + 1]
    return torch.from_numpy(np.lexsort(used.numpy().T[::-1]))
