"""Shuffle captions: the control that shows what a model learns from the pairing."""

from dataclasses import replace

import numpy as np

from diptych.data.example import Example
from diptych.data.left_out import left_out_of
from diptych.data.sources.opening import Source
from diptych.data.subsets.joined import parts_of


class ShuffledCaptions:
    """A source in which each image has the captions, tags and group of another, fixed example."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source = source
        self._partner = np.random.default_rng(seed).permutation(len(source))
        self.parts = parts_of(source)
        self.left_out = left_out_of(source)
        self.mixed: tuple[int, ...] = getattr(source, "mixed", ())

    @property
    def name(self) -> str:
        return f"{self._source.name} (captions permuted)"

    @property
    def fingerprint(self) -> str:
        return f"{self._source.fingerprint}-permuted"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int, /) -> Example:
        shown, words = self._source[position], self._source[int(self._partner[position])]
        return replace(shown, captions=words.captions, tags=words.tags, group=words.group)

    def describe(self) -> str:
        return f"{self._source.describe()}, captions permuted"
