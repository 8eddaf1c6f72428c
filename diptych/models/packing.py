"""A batch of texts without its padding and without its repetitions, for the causal tower.

A caption has about a dozen tokens and a batch is as wide as its longest, so most of a padded batch is padding. And
texts begin alike: all share the start token, prompts share "a photo of". Through a causal mask a token depends on
those before it alone, so that equal beginnings have equal values. The packed batch is one row for each distinct
beginning: the tree of the texts, whose rows stand in the order in which a walk through it meets them.

Everything but attention works on rows. Attention works on stretches of consecutive rows: the rows that those have
in their past are the stretch itself and the path from the root to it, and little else.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Rows whose texts attend together. The work on pairs of rows grows with it, the calls of the kernel shrink; measured.
_STRETCH = 64


@dataclass(frozen=True)
class _Stretch:
    """Consecutive rows that attend together."""

    queries: slice
    keys: Tensor  # (keys,) every row that one of them may see
    seen: Tensor  # (queries, keys) whether it does


@dataclass(frozen=True)
class Packing:
    """The rows of a batch of texts, and how they attend to each other."""

    tokens: Tensor  # (rows,) ids
    positions: Tensor  # (rows,) place in the text
    ends: Tensor  # (batch,) the row of each text's end token
    stretches: tuple[_Stretch, ...]

    def attend(self, projected: Tensor, heads: int) -> Tensor:
        """Causal attention of every row to its beginning.

        projected: (rows, 3 * width), queries, keys and values; returns (rows, width).
        """
        width = projected.shape[1] // 3
        part = width // heads
        queries, pairs = projected[:, :width], projected[:, width:]
        mixed = []
        for stretch in self.stretches:
            query = queries[stretch.queries].view(1, -1, heads, part).transpose(1, 2)
            pair = pairs.index_select(0, stretch.keys).view(1, -1, 2, heads, part)
            key, value = pair.permute(2, 0, 3, 1, 4)  # each (1, heads, keys, part)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=stretch.seen)
            mixed.append(seen.transpose(1, 2).reshape(-1, width))
        return torch.cat(mixed)


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
    ends = row.gather(1, end[:, None])[:, 0]
    return Packing(
        tokens=texts[opens],
        positions=place.expand_as(opens)[opens],
        ends=ends[number],
        stretches=_stretches(row, inside, ends),
    )


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


def _stretches(row: Tensor, inside: Tensor, ends: Tensor) -> tuple[_Stretch, ...]:
    """row: (texts, tokens) of each token, where it is `inside` its text; ends: (texts,) rising."""
    # The rows behind a row and up to the last text that goes through it are those that have it in their past.
    last = ends.new_zeros(int(ends[-1]) + 1)
    last.scatter_reduce_(0, row[inside], ends[:, None].expand_as(row)[inside], "amax")
    texts = torch.unique_consecutive(ends // _STRETCH, return_counts=True)[1].tolist()
    stretches, text, start = [], 0, 0
    for count in texts:
        stop = int(ends[text + count - 1]) + 1
        path = row[text][inside[text]]  # what a later text shares with those above, the first one shares, too
        keys = torch.cat((path[path < start], torch.arange(start, stop, device=row.device)))
        query = torch.arange(start, stop, device=row.device)[:, None]
        seen = (keys <= query) & (query <= last[keys])
        stretches.append(_Stretch(slice(start, stop), keys, seen))
        text, start = text + count, stop
    return tuple(stretches)
