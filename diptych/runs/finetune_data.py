"""Examine the data that a model is to be fine-tuned on: what there is, and what is wrong with it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diptych.data.example import Example
from diptych.data.images.decoding import WHITE, open_image, read_rgb
from diptych.data.left_out import LeftOut, all_left_out, left_out_of
from diptych.data.reasons import reason_of
from diptych.data.sources.opening import Source
from diptych.data.subsets.labelled import LabelFrom, classes_of, label_of
from diptych.errors import DataError
from diptych.training.methods import LABEL_METHODS, FinetuneMethod

Kind = Literal["labels", "several", "pairs"]

_DECODED = 1000  # images at most that are decoded beforehand; of more, so many from all over the data
_LOOKED_AT = 32  # images in which transparent parts are looked for
_NAMED = 3  # of what is wrong, in a message


@dataclass(frozen=True)
class DataSummary:
    """What was found.

    images: that can be read, as far as was looked. counts: of each class, by name; empty for pairs. unreadable: of what
    was decoded. transparent: whether most images have transparent parts. remarks: what does not hinder, but matters.
    left_out: what the data's source left out, and the rows that cannot be used, as far as was looked.
    """

    kind: Kind
    images: int
    counts: dict[str, int]
    unreadable: int
    transparent: bool
    remarks: tuple[str, ...]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(self.counts))

    @property
    def imbalance(self) -> float:
        """The examples of the largest class divided by those of the smallest; 1 for pairs."""
        return max(self.counts.values()) / min(self.counts.values()) if self.counts else 1.0


def examine(
    source: Source,
    *,
    label_from: LabelFrom = "label",
    several: bool = False,
    method: FinetuneMethod | None = None,
) -> DataSummary:
    """Read every row, and decode its image, or those of a thousand rows of more.

    method: how the model will be fine-tuned, where that is known. It decides for class folders whose images have
    captions as well: they are pairs, but for a method that learns from labels alone.

    Raises:
        DataError: fewer than two images or two classes, neither labels nor captions, images without a label among
            others, labels that differ in case or spacing only, a class none of whose images can be read.
    """
    rows, bad, left_out = _readable(source)
    if len(rows) < 2:
        what = f"; {bad[0]}" if bad else ""
        raise DataError(f"{source.name}: {len(rows)} images can be read, expected two or more{what}")
    examples = [example for example, _ in rows]
    labels = [classes_of(one) if several else _one(label_of(one, label_from)) for one in examples]
    kind: Kind = "several" if several else "labels"
    if not any(labels):
        if several or not any(example.captions for example in examples):
            raise DataError(
                f"{source.name}: images without labels{'' if several else ' and without captions'}; labels come from "
                "class folders, a label column (tags where an image has several), or `label` in JSON"
            )
        kind, labels = "pairs", [()] * len(examples)
    remarks = _remarks(source, bad)
    if kind == "labels" and method not in LABEL_METHODS and _captions_beside(examples, labels):
        kind, labels = "pairs", [()] * len(examples)
        remarks.append(
            f"{source.name}: most images have captions, which are learned from; to learn the names of their folders "
            "as classes, give --method head"
        )
    counts: Counter[str] = Counter()
    if kind != "pairs":
        counts = _count_images(source, rows, labels, several)
        remarks += _remarks_on_classes(source, counts, several)
    good = sum(readable for _, readable in rows)
    return DataSummary(kind, good, dict(counts), len(bad), _transparent(examples), tuple(remarks), left_out)


def _captions_beside(examples: Sequence[Example], labels: Sequence[tuple[str, ...]]) -> bool:
    """Return whether most images have captions, and only the folder of each names a class."""
    captioned = sum(bool(example.captions) for example in examples)
    folders = [
        (example.image.parent.name,) if isinstance(example.image, Path) else () for example in examples
    ]
    named = (found in ((), folder) for found, folder in zip(labels, folders, strict=True))
    return 2 * captioned > len(examples) and all(named)


def _one(label: str | None) -> tuple[str, ...]:
    return () if label is None else (label,)


def _readable(source: Source) -> tuple[list[tuple[Example, bool]], list[str], LeftOut]:
    """Return each readable row with whether its image can be decoded, and what is wrong with the others.

    The last is what is wrong with them by reason, and what the source left out.
    """
    left_out = all_left_out([left_out_of(source)])
    every = max(1, len(source) // _DECODED)
    rows: list[tuple[Example, bool]] = []
    bad: list[str] = []
    for position in range(len(source)):
        try:
            example = source[position]
        except DataError as error:
            bad.append(str(error))
            left_out.add(reason_of(error), error.image or f"{source.name}#{position}")
            continue
        try:
            if position % every == 0:
                read_rgb(example.image, WHITE)
        except DataError as error:
            bad.append(str(error))
            left_out.add(reason_of(error), example.key)
            rows.append((example, False))
        else:
            rows.append((example, True))
    return ([] if not any(readable for _, readable in rows) else rows), bad, left_out


def _count_images(
    source: Source, rows: Sequence[tuple[Example, bool]], labels: Sequence[tuple[str, ...]], several: bool
) -> Counter[str]:
    without = [example.key for (example, _), found in zip(rows, labels, strict=True) if not found]
    if without and not several:
        raise DataError(
            f"{source.name}: {len(without):,} of {len(rows):,} images have no label ({_some(without)}); "
            "move them into class folders, fill in their labels, or take them out"
        )
    named = {name for found in labels for name in found}
    _refuse_near_equals(source, labels)
    counts = Counter(
        name for (_, readable), found in zip(rows, labels, strict=True) if readable for name in found
    )
    unread = sorted(named - counts.keys())
    if unread:
        raise DataError(
            f"{source.name}: no image of {_some(list(map(repr, unread)))} can be read; replace them, or "
            "take the class out. `diptych data verify` lists every bad image"
        )
    if len(counts) < 2:
        raise DataError(
            f"{source.name}: one class, {next(iter(counts))!r}; expected two or more: a folder each, or a label column"
        )
    return counts


def _refuse_near_equals(source: Source, labels: Sequence[tuple[str, ...]]) -> None:
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for found in labels:
        for name in found:
            spellings[" ".join(name.replace("_", " ").casefold().split())][name] += 1
    for names in spellings.values():
        if len(names) > 1:
            shown = " and ".join(f"{name!r} ({count:,})" for name, count in names.most_common())
            raise DataError(
                f"{source.name}: the labels {shown} differ in case or spacing only; give all of them one spelling, or "
                "names that tell the classes apart"
            )


def _remarks(source: Source, bad: Sequence[str]) -> list[str]:
    if not bad:
        return []
    what = "image cannot be read and is" if len(bad) == 1 else "images cannot be read and are"
    return [f"{source.name}: {len(bad):,} {what} left out: {_some(bad)}"]


def _remarks_on_classes(source: Source, counts: Counter[str], several: bool) -> list[str]:
    remarks = []
    alone = sorted(name for name, count in counts.items() if count == 1)
    if alone:
        remarks.append(
            f"{len(alone):,} classes have one image, which is trained on and cannot be held out: {_some(alone)}"
        )
    folder = Path(source.name)
    if folder.is_dir() and not several:
        used = set(counts)
        empty = sorted(
            path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        without = [name for name in empty if name not in used and not any((folder / name).rglob("*.*"))]
        if without:
            remarks.append(
                f"{source.name}: folders without an image, whose classes will not be known: {_some(without)}"
            )
    return remarks


def _transparent(examples: Sequence[Example]) -> bool:
    looked = examples[:: max(1, len(examples) // _LOOKED_AT)][:_LOOKED_AT]
    return 2 * sum(map(_has_transparency, looked)) > len(looked)


def _has_transparency(example: Example) -> bool:
    try:
        return open_image(example.image).has_transparency_data
    except DataError:
        return False


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
