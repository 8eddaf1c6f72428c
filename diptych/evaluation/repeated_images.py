"""Rows that show the same image: an image counts once, however many rows a table has for it.

A score over rows would take the captions of one image for different images, and its interval would count as many trials
as there are rows.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

from diptych.evaluation.survey import Survey

T = TypeVar("T")


def rows_of_images(rows: Survey[T]) -> dict[int, list[int]]:
    """Return the positions of the rows of each image, by the first of them, in order."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for position, first in rows.images.items():
        found[first].append(position)
    return dict(found)


def without_repeats(rows: Survey[T], said: Callable[[T], tuple[str, ...]]) -> dict[int, T]:
    """Return the first of those rows that show the same image and say the same of it, by position.

    said: what a row says of its image, such as its label. Rows of one image that say different things all stay.
    """
    first: dict[tuple[int, tuple[str, ...]], int] = {}
    for position, row in rows.picked.items():
        first.setdefault((rows.images[position], said(row)), position)
    return {position: rows.picked[position] for position in first.values()}


def count_remark(rows: Survey[T]) -> tuple[str, ...]:
    """Return the remark that there are fewer images than rows; empty where each row has its own image."""
    count, images = len(rows.picked), len(set(rows.images.values()))
    return () if count == images else (f"{count:,} rows show {images:,} images",)


def label_remark(rows: Survey[T], labels: Callable[[T], str], key: Callable[[T], str]) -> tuple[str, ...]:
    """Return the remark that rows of one image have different labels; empty where none have."""
    differing: Mapping[int, list[str]] = {
        first: names
        for first, positions in rows_of_images(rows).items()
        if len(names := list(dict.fromkeys(labels(rows.picked[position]) for position in positions))) > 1
    }
    if not differing:
        return ()
    first, names = next(iter(differing.items()))
    count = "1 image has" if len(differing) == 1 else f"{len(differing):,} images have"
    return (
        f"{count} different labels in different rows, such as {key(rows.picked[first])!r}: "
        f"{' and '.join(map(repr, names[:3]))}; each label counts",
    )
