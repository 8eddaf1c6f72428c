"""Split a source into two parts that share neither an image nor a near copy of one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from diptych.config import nearest
from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.data.subsets.held_out import Flags, Labels, held_out
from diptych.data.subsets.labelled import LabelFrom, label_of, readable
from diptych.data.subsets.near_copies import MOST, Groups, near_copies
from diptych.data.subsets.same_images import same_images
from diptych.errors import DataError

FOLDER = "folder"  # in place of a metadata field: group by the folder that an image lies in

_SHOWN = 3  # classes in a message


@dataclass(frozen=True)
class Split:
    """A held-out part.

    held_out: (n,) flags of the source's rows. groups: (n,) ids, equal for rows that stay on one side. grouped_by: the
    basis of the groups: "near copies", "equal images" or a metadata field. strict, unsearched: see `NearCopies`.
    without: classes of two images or more from which none could be held out.
    """

    held_out: Flags
    groups: Groups
    grouped_by: str
    strict: tuple[str, ...]
    unsearched: tuple[str, ...]
    without: tuple[str, ...]

    def describe(self) -> str:
        """Summarise what was held out, in a few lines."""
        figures = self.to_json()
        found = (
            f"{figures['grouped']:,} rows are in {figures['groups']:,} groups of two or more; the largest has "
            f"{figures['largest']:,}"
        )
        lines = [
            f"held out {figures['count']:,} of {len(self.groups):,} rows, by whole groups ({self.grouped_by}): "
            f"{found if figures['groups'] else 'there are none; each row is alone'}"
        ]
        if self.strict:
            lines.append(
                f"warning: images of {_some(self.strict)} are so alike that only the nearest count as copies; if a "
                "column names the groups, give it with [data] group_by or --group-by"
            )
        if self.unsearched:
            lines.append(
                f"warning: {_some(self.unsearched)}: more than {MOST:,} images, so only equal images were looked for, "
                "not near copies; if a column names the groups, give it with [data] group_by or --group-by"
            )
        if self.without:
            lines.append(
                f"warning: nothing is held out from {_some(self.without)}: all of its images are one group; add other "
                "images"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the figures. groups: the groups of two or more. grouped: the rows in them."""
        sizes = np.unique(self.groups, return_counts=True)[1]
        return {
            "count": int(self.held_out.sum()),
            "of": len(self.groups),
            "grouped_by": self.grouped_by,
            "grouped": int(sizes[sizes > 1].sum()),
            "groups": int((sizes > 1).sum()),
            "largest": int(sizes.max()) if len(sizes) else 0,
        }


def split(
    source: Source,
    share: float,
    *,
    label_from: LabelFrom,
    copies: bool = True,
    group_by: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Split:
    """Hold out about `share` of each class of a source, so that no image is on both sides.

    copies: whether near copies of an image stay on its side. group_by: a metadata field in their place, or "folder":
    rows with one value stay on one side. Rows of one image always do. say: receives a line about slow work.

    Raises:
        DataError: no row has the field. SettingsError: see `held_out`.
    """
    keys, labels, values = _read(source, label_from, group_by)
    images = same_images(source)
    groups, by = images, "equal images"
    strict: tuple[str, ...] = ()
    unsearched: tuple[str, ...] = ()
    if group_by is not None:
        groups, by = _join(images, values), group_by
    elif copies:
        firsts = np.flatnonzero(images == np.arange(len(images)))
        say(
            f"looking for near copies among {len(firsts):,} images, so that copies stay on one side of the split"
        )
        found = near_copies(source, firsts.tolist(), [labels[row] for row in firsts.tolist()])
        groups = images.copy()
        groups[firsts] = firsts[found.groups]
        groups, by = groups[images], "near copies"
        strict, unsearched = found.strict, found.unsearched
    flags = held_out(keys, labels, share, groups)
    return Split(flags, groups, by, strict, unsearched, _without(flags, labels))


def _read(
    source: Source, label_from: LabelFrom, group_by: str | None
) -> tuple[list[str], Labels, list[str | None]]:
    """Return the key, the label and the group's value of every row; "" and None for one that cannot be read."""
    keys: list[str] = []
    labels: list[str | None] = []
    values: list[str | None] = []
    fields: set[str] = {FOLDER}
    for example in readable(source):
        keys.append("" if example is None else example.key)
        labels.append(None if example is None else label_of(example, label_from))
        values.append(None if example is None or group_by is None else _value(example, group_by))
        fields.update(() if example is None else example.metadata)
    if group_by is not None and not any(value is not None for value in values):
        raise DataError(
            f"{source.name}: group_by = {group_by!r}: no row has such a field; {nearest(group_by, sorted(fields))}"
        )
    return keys, labels, values


def _value(example: Example, field: str) -> str | None:
    value = example.metadata.get(field)
    if value is not None and str(value).strip():
        return str(value)
    if field != FOLDER:
        return None
    folder = PurePath(str(example.image) if isinstance(example.image, PurePath) else example.key).parent
    return str(folder)


def _join(images: Groups, values: list[str | None]) -> Groups:
    """Join rows of one image and rows of one value. Returns (n,): the first row of each one's connected group."""
    # Takes 0.2 s, and few runs need it.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    count = len(images)
    first: dict[str, int] = {}
    alike = [row if value is None else first.setdefault(value, row) for row, value in enumerate(values)]
    links = np.tile(np.arange(count), 2), np.concatenate((images, np.array(alike, np.int64)))
    graph = coo_array((np.ones(2 * count), links), shape=(count, count))
    number = connected_components(graph, directed=False)[1]
    firsts: Groups = np.unique(number, return_index=True)[1][number].astype(np.int64)
    return firsts


def _without(flags: Flags, labels: Labels) -> tuple[str, ...]:
    sizes = Counter(labels)
    taken = Counter(label for label, flag in zip(labels, flags.tolist(), strict=True) if flag)
    if not taken and not flags.size:
        return ()
    return tuple(
        sorted(label for label, size in sizes.items() if label is not None and size > 1 and not taken[label])
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) if name else "the data" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more classes" if len(names) > _SHOWN else "")
