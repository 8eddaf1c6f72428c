"""Pictures whose only word is the name of their class."""

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example
from diptych.data.joined import parts_of
from diptych.data.sources import Source
from diptych.errors import DataError

LabelFrom = Literal["label", "caption", "group"]


class Labelled:
    """A source whose examples say the name of their class and nothing else.

    label_from: where it stands, in the example's label, its first caption or its group. required: whether an example
    without one is bad; else it has no text.
    """

    def __init__(self, source: Source, label_from: LabelFrom, *, required: bool) -> None:
        self._source = source
        self._label_from = label_from
        self._required = required
        self.parts = parts_of(source)
        self.mixed: tuple[int, ...] = getattr(source, "mixed", ())

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def fingerprint(self) -> str:
        return f"{self._source.fingerprint}-{self._label_from}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int, /) -> Example:
        example = self._source[position]
        label = label_of(example, self._label_from)
        if label is None and self._required:
            raise DataError(
                f"{example.key}: has no {self._label_from} to learn as its class; labels come from class folders, a "
                'label column, `label` in JSON, or from captions with [data] label_from = "caption"'
            )
        return replace(example, captions=() if label is None else (label,), tags=())

    def describe(self) -> str:
        return self._source.describe()


def label_of(example: Example, label_from: LabelFrom) -> str | None:
    """The name of an example's class; None where it has none."""
    if label_from == "label":
        return example.label
    if label_from == "group":
        return example.group
    return example.captions[0] if example.captions else None


def class_names(source: Source, weights: npt.NDArray[np.float64], label_from: LabelFrom) -> tuple[str, ...]:
    """The names of all classes of the examples that are seen, sorted; DataError where there are fewer than two."""
    seen = {label_of(source[int(position)], label_from) for position in np.flatnonzero(weights)}
    names = tuple(sorted(name for name in seen if name is not None))
    if len(names) < 2:
        raise DataError(
            f"{source.name}: {len(names)} classes in the {label_from}s of its examples; expected two or more"
        )
    return names


def few_of_each(
    source: Source, weights: npt.NDArray[np.float64], label_from: LabelFrom, count: int, seed: int
) -> npt.NDArray[np.float64]:
    """The weights with all but `count` examples of each class at 0; which ones are left, the seed draws.

    Raises DataError where a class has fewer.
    """
    result = np.zeros_like(weights)
    taken: dict[str, int] = {}
    used = np.flatnonzero(weights)
    for position in np.random.default_rng(seed).permutation(used):
        label = label_of(source[int(position)], label_from)
        if label is not None and taken.setdefault(label, 0) < count:
            taken[label] += 1
            result[position] = weights[position]
    short = next((name for name, number in sorted(taken.items()) if number < count), None)
    if short is not None:
        raise DataError(
            f"{source.name}: class {short!r} has {taken[short]} examples; labels_per_class = {count}"
        )
    return result
