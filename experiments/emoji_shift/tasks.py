"""The data of the experiment, as sources whose label is the class that a task asks for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from diptych.data.example import Example
from diptych.data.sources.opening import Source, open_source
from diptych.evaluation.zero_shot.class_labels import LabelSet

SHIFT = "eval-emoji-vendor-shift.tar"


class Selected:
    """Rows of a source with labels of our own. label: of an example, or None where it is not wanted."""

    def __init__(self, source: Source, label: Callable[[Example], str | None], name: str) -> None:
        self.source, self.name = source, name
        self.labels = {row: found for row in range(len(source)) if (found := label(source[row])) is not None}
        self.rows: Sequence[int] = list(self.labels)
        self.fingerprint = source.fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Example:
        row = self.rows[position]
        return replace(self.source[row], label=self.labels[row])

    def describe(self) -> str:
        return f"{self.name}: {len(self)} of {len(self.source)} examples"


def concepts(corpus: Path) -> LabelSet:
    """The 1,399 emoji: called by their code point in the data, by their Unicode name in words."""
    names = {}
    source = open_source(corpus / SHIFT)
    for row in range(len(source)):
        example = source[row]
        names[str(example.group)] = example.captions[0]
    codes = tuple(sorted(names))
    return LabelSet(codes, tuple((names[code],) for code in codes))


def by_concept(place: Path, labels: LabelSet) -> Selected:
    known = set(labels.names)
    return Selected(
        open_source(place), lambda example: example.group if example.group in known else None, place.name
    )


def by_emoji_group(place: Path, labels: LabelSet) -> Selected:
    """One of eight subjects, such as "food & drink"."""
    known = set(labels.names)
    return Selected(
        open_source(place),
        lambda example: str(example.metadata["group"]) if example.group in known else None,
        place.name,
    )
