"""The two sides of a batch, tower by tower and chunk by chunk.

A batch of any size needs the memory of a few chunks (gradient caching, Gao et al. 2021): a first pass keeps only
the features, the loss gives their gradients, and a second pass computes each chunk again to send its gradients on.
That is the gradient of the whole batch, to rounding, for every objective of the features. A chunk whose graph is
kept is not computed again, so that a batch of one kept chunk is the plain forward and backward pass.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diptych.models.layers.batch_statistics import frozen_running_statistics

Syncing = Callable[[bool], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Chunking:
    """How many rows go through a tower at a time.

    images, texts: rows of a chunk; None is all of them. keep: chunks of each side whose graphs are kept.
    """

    images: int | None = None
    texts: int | None = None
    keep: int = 0


WHOLE = Chunking()


class Side:
    """One side of a batch on its way through a tower.

    encode: rows to their features, (len(rows), dim). parts: the rows of each chunk. kept: how many of the first
        chunks keep their graphs. syncing: a context in which a backward pass does, or does not, sum gradients over
        the processes; it does for the last chunk alone.
    """

    def __init__(
        self,
        tower: nn.Module,
        encode: Callable[[Tensor], Tensor],
        parts: Sequence[Tensor],
        kept: int,
        syncing: Syncing,
    ) -> None:
        self._tower = tower
        self._encode = encode
        self._parts = parts
        self._kept = kept
        self._syncing = syncing
        self._graphs: list[Tensor] = []

    def features(self) -> Tensor:
        """The features of every row, in the order of the rows, as a leaf that wants a gradient unless it is ids."""
        features: list[Tensor] = []
        for number, rows in enumerate(self._parts):
            if number < self._kept:
                with self._syncing(self._is_last(number)):
                    self._graphs.append(self._encode(rows))
                features.append(self._graphs[-1].detach())
            else:
                with torch.no_grad():
                    features.append(self._encode(rows))
        joined = torch.cat(features)
        ordered = torch.empty_like(joined)
        ordered[torch.cat(list(self._parts))] = joined
        return ordered.requires_grad_(ordered.is_floating_point())

    def backward(self, gradient: Tensor) -> None:
        """Send the gradient of the features, (rows, dim), through the tower into its parameters."""
        for number, rows in enumerate(self._parts):
            with self._syncing(self._is_last(number)):
                if number < self._kept:
                    # The list lets go of the graph, so that its memory is free after its backward pass.
                    features, self._graphs[number] = self._graphs[number], gradient
                else:
                    with frozen_running_statistics(self._tower):
                        features = self._encode(rows)
                if features.requires_grad:
                    features.backward(gradient[rows])

    def _is_last(self, number: int) -> bool:
        return number == len(self._parts) - 1


def parts_of(order: Tensor, size: int | None, most: int) -> list[Tensor]:
    """Rows in `order`, cut into even chunks of at most `size`.

    most: rows of the process that has most. Every process makes as many chunks as that one: shards of the weights
    are gathered chunk by chunk, by all processes together.
    """
    return [order] if size is None else list(order.tensor_split(-(-most // size)))


def kept_of(parts: int, keep: int, *, distributed: bool) -> int:
    """How many graphs are kept: a single chunk always is.

    Between processes the last of several chunks is computed again: its forward pass announces the sums over the
    processes, which no other backward pass may come in between.
    """
    if parts == 1:
        return 1
    return min(keep, parts - 1 if distributed else parts)
