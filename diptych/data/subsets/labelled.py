"""Replace the captions of a source by the names of its classes."""

from collections.abc import Iterator, Mapping, Sequence
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

SEPARATOR = "\x1f"  # between the classes of an example with several


class _CaptionReplacement:
    """A source with other captions. ending: of its fingerprint."""

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


class LabelledSource(_CaptionReplacement):
    """A source whose only captions are the names of the classes.

    label_from: the field of the name: the example's label, its first caption or its group. required: whether an
    example without one is bad; else it has no caption.
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


class PromptedSource(_CaptionReplacement):
    """A source whose captions are prompts with the name of the class, one of which is drawn: the texts of FLYP.

    words: by class, the names to fill into the templates; a class that is missing here uses its label.
    """

    def __init__(
        self,
        source: Source,
        label_from: LabelFrom,
        words: Mapping[str, Sequence[str]],
        templates: Sequence[str],
    ) -> None:
        super().__init__(LabelledSource(source, label_from, required=True), "prompted")
        self._names = words
        self._templates = templates

    def _words_of(self, example: Example) -> tuple[str, ...]:
        label = example.captions[0]
        names = self._names.get(label, (label,))
        return tuple(
            template.replace("{}", valid_unicode(name)) for name in names for template in self._templates
        )


class MultiLabelSource(_CaptionReplacement):
    """A source whose caption is the names of all classes of an example, joined with `SEPARATOR`."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, "several")

    def _words_of(self, example: Example) -> tuple[str, ...]:
        return (SEPARATOR.join(classes_of(example)),)


def label_of(example: Example, label_from: LabelFrom) -> str | None:
    """Return the name of an example's class; None if it has none."""
    if label_from == "label":
        return example.label
    if label_from == "group":
        return example.group
    return example.captions[0] if example.captions else None


def classes_of(example: Example) -> tuple[str, ...]:
    """Return all classes of an example: its tags, else its label split at `;` and `|`."""
    found = example.tags or tuple((example.label or "").replace("|", ";").split(";"))
    return tuple(dict.fromkeys(name.strip() for name in found if name.strip()))


def readable(source: Source) -> Iterator[Example | None]:
    """Yield every example of a source in order, and None for one that cannot be read."""
    for position in range(len(source)):
        try:
            yield source[position]
        except DataError:
            yield None


def labels_of(source: Source, label_from: LabelFrom) -> tuple[list[str], list[str | None]]:
    """Return the key and the label of every example; "" and None for one that cannot be read."""
    rows = [("", None) if row is None else (row.key, label_of(row, label_from)) for row in readable(source)]
    return [key for key, _ in rows], [label for _, label in rows]


def class_names(source: Source, weights: npt.NDArray[np.float64], label_from: LabelFrom) -> tuple[str, ...]:
    """Return the sorted names of all classes with a weight above 0. Raises DataError for fewer than two."""
    seen = {label_of(source[int(position)], label_from) for position in np.flatnonzero(weights)}
    names = tuple(sorted(name for name in seen if name is not None))
    if len(names) < 2:
        raise DataError(
            f"{source.name}: {len(names)} classes in the {label_from}s of its examples; expected at least two"
        )
    return names


def sample_per_class(
    source: Source, weights: npt.NDArray[np.float64], label_from: LabelFrom, count: int, seed: int
) -> npt.NDArray[np.float64]:
    """Set the weights to 0 for all but `count` examples of each class, drawn by the seed.

    No two of them show the same image. Raises DataError if a class has fewer.
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
            f"{source.name}: the class {short!r} has {taken[short]} different images; expected at least "
            f"labels_per_class = {count}; lower that, or add images"
        )
    return result
