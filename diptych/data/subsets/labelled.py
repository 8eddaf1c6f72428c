"""Pictures whose only word is the name of their class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example, valid_unicode
from diptych.data.left_out import left_out_of
from diptych.data.sources.opening import Source
from diptych.data.subsets.joined import parts_of
from diptych.data.subsets.same_images import same_images
from diptych.errors import DataError

LabelFrom = Literal["label", "caption", "group"]

SEPARATOR = "\x1f"  # between the classes of an example that may be of several


class _Reworded:
    """A source with other words to each picture. ending: of the fingerprint."""

    def __init__(self, source: Source, ending: str) -> None:
        self._source = source
        self._ending = ending
        self.parts = parts_of(source)
        self.left_out = left_out_of(source)
        self.mixed: tuple[int, ...] = getattr(source, "mixed", ())

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def fingerprint(self) -> str:
        return f"{self._source.fingerprint}-{self._ending}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int, /) -> Example:
        example = self._source[position]
        return replace(example, captions=self._words_of(example), tags=())

    def _words_of(self, example: Example) -> tuple[str, ...]:
        raise NotImplementedError

    def describe(self) -> str:
        return self._source.describe()


class Labelled(_Reworded):
    """A source whose examples say the name of their class and nothing else.

    label_from: where it stands, in the example's label, its first caption or its group. required: whether an example
    without one is bad; else it has no text.
    """

    def __init__(self, source: Source, label_from: LabelFrom, *, required: bool) -> None:
        super().__init__(source, label_from)
        self._label_from = label_from
        self._required = required

    def _words_of(self, example: Example) -> tuple[str, ...]:
        label = label_of(example, self._label_from)
        if label is None and self._required:
            raise DataError(
                f"{example.key}: has no {self._label_from} to learn as its class; labels come from class folders, a "
                'label column, `label` in JSON, or from captions with [data] label_from = "caption"'
            )
        return () if label is None else (label,)


class Prompted(_Reworded):
    """A source whose examples say the name of their class in sentences, one of which is drawn: FLYP's texts.

    words: of each class, the names that are filled into the templates; its label where it is not there.
    """

    def __init__(
        self,
        source: Source,
        label_from: LabelFrom,
        words: Mapping[str, Sequence[str]],
        templates: Sequence[str],
    ) -> None:
        super().__init__(Labelled(source, label_from, required=True), "prompted")
        self._names = words
        self._templates = templates

    def _words_of(self, example: Example) -> tuple[str, ...]:
        label = example.captions[0]
        names = self._names.get(label, (label,))
        return tuple(
            template.replace("{}", valid_unicode(name)) for name in names for template in self._templates
        )


class SeveralLabels(_Reworded):
    """A source whose examples say the names of all their classes, `SEPARATOR` between them: their tags."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, "several")

    def _words_of(self, example: Example) -> tuple[str, ...]:
        return (SEPARATOR.join(classes_of(example)),)


def label_of(example: Example, label_from: LabelFrom) -> str | None:
    """The name of an example's class; None where it has none."""
    if label_from == "label":
        return example.label
    if label_from == "group":
        return example.group
    return example.captions[0] if example.captions else None


def classes_of(example: Example) -> tuple[str, ...]:
    """All classes of an example that may be of several: its tags, else its label cut at `;` and `|`."""
    found = example.tags or tuple((example.label or "").replace("|", ";").split(";"))
    return tuple(dict.fromkeys(name.strip() for name in found if name.strip()))


def labels_of(source: Source, label_from: LabelFrom) -> tuple[list[str], list[str | None]]:
    """The key and the label of every example, "" and None for one that cannot be read."""
    keys: list[str] = []
    labels: list[str | None] = []
    for position in range(len(source)):
        try:
            example = source[position]
        except DataError:
            keys.append("")
            labels.append(None)
            continue
        keys.append(example.key)
        labels.append(label_of(example, label_from))
    return keys, labels


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

    No two of them show the same image. Raises DataError where a class has fewer.
    """
    result = np.zeros_like(weights)
    taken: dict[str, int] = {}
    used = np.flatnonzero(weights)
    image_of = dict(zip(used.tolist(), same_images(source, used).tolist(), strict=True))
    drawn: set[int] = set()
    for position in np.random.default_rng(seed).permutation(used).tolist():
        label = label_of(source[position], label_from)
        if label is None or image_of[position] in drawn:
            continue
        if taken.setdefault(label, 0) < count:
            taken[label] += 1
            drawn.add(image_of[position])
            result[position] = weights[position]
    short = next((name for name, number in sorted(taken.items()) if number < count), None)
    if short is not None:
        raise DataError(
            f"{source.name}: class {short!r} has {taken[short]} different images; labels_per_class = {count}"
        )
    return result
