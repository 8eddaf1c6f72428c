"""Features of a locked tower, which are the same every time: computed once, then kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from diptych.data.batch import Batch


class KeptFeatures:
    """Features by the index of their example in the source; in memory, n times the width of a feature."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, batch: Batch, rows: Tensor, encode: Callable[[Batch, Tensor], Tensor]) -> Tensor:
        """Return (len(rows), width). encode: a batch and its rows to their features; called for those that are new."""
        indices = batch.rows[rows].tolist()
        new = [row for row, index in enumerate(indices) if index not in self._kept]
        if new:
            with torch.no_grad():
                found = encode(batch, rows[new])
            for row, feature in zip(new, found, strict=True):
                self._kept[indices[row]] = feature.clone()
        return torch.stack([self._kept[index] for index in indices])
