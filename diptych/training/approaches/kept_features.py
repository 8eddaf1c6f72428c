"""Features of a locked tower, which are the same every time: computed once, then kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from diptych.data.images.augmentations import CentreCrop
from diptych.data.loader import Batch
from diptych.training.settings import Recipe


class KeptFeatures:
    """Of each example of the source by its place there; in memory, n times the width of a feature."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, batch: Batch, rows: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(len(rows), width). encode: rows of the batch to their features; called for those that are new."""
        places = batch.rows[rows].tolist()
        new = [number for number, place in enumerate(places) if place not in self._kept]
        if new:
            with torch.no_grad():
                found = encode(rows[new])
            for number, feature in zip(new, found, strict=True):
                self._kept[places[number]] = feature.clone()
        return torch.stack([self._kept[place] for place in places])


def may_keep(recipe: Recipe) -> bool:
    """Whether an image looks the same every time: nothing about its view is random."""
    return isinstance(recipe.augmentation, CentreCrop) and not recipe.training.patch_dropout
