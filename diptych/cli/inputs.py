"""What a user types for classes, templates and pictures, and what it is turned into."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import NO_TABLE_OPTIONS, TableOptions
from diptych.errors import DataError, ImageError, UsageError

if TYPE_CHECKING:
    from diptych.data.images.transforms import Preprocess
    from diptych.data.left_out import LeftOut
    from diptych.data.sources.opening import Source
    from diptych.evaluation.zero_shot.class_labels import LabelSet
    from diptych.evaluation.zero_shot.classification import BuildClassifier

KeepNothing = Annotated[
    bool,
    Parameter(
        name="--no-cache", negative="", help="Embed the classes' words again, and keep nothing for next time."
    ),
]


def open_data(place: str, columns: TableOptions = NO_TABLE_OPTIONS) -> "Source":
    """Open what `SOURCE` or `--data` names, with the options of a table; raises what `open_source` raises."""
    from diptych.data.sources.opening import open_source  # noqa: PLC0415

    return open_source(place, **vars(columns))


def read_classes(labels: str | None, file: Path | None) -> "LabelSet":
    """The classes, from exactly one of `--labels "cat,dog"` and `--labels-file FILE`."""
    from diptych.evaluation.zero_shot.class_labels import labels_from, read_labels  # noqa: PLC0415

    if labels is not None and file is None:
        return labels_from(labels)
    if file is not None and labels is None:
        return read_labels(file)
    raise UsageError('give the classes by exactly one of --labels "cat,dog" and --labels-file FILE')


def classifier_builder(preprocess: "Preprocess", *, keep: bool) -> "BuildClassifier":
    """What makes a zero-shot classifier of a model with this preprocessing; with `keep`, the cache does."""
    from diptych.evaluation.zero_shot.classification import classifier  # noqa: PLC0415
    from diptych.evaluation.zero_shot.classifier_cache import cached_classifier  # noqa: PLC0415

    return functools.partial(cached_classifier, preprocess=preprocess) if keep else classifier


class Pictures:
    """Picture files that a user named, and those found in the folders that a user named.

    files: the named ones first. left_out: what lies in the folders and is not used, pictures that cannot be read
    included once `leave_out` was told of them.
    """

    def __init__(self, named: "Sequence[Path]", found: "Sequence[Path]", left_out: "LeftOut") -> None:
        self.files = [*named, *found]
        self.left_out = left_out
        self._named = len(named)

    def leave_out(self, position: int, error: ImageError) -> None:
        """Count a picture of a folder that cannot be read; raise the error of one that was named."""
        from diptych.data.reasons import reason_of  # noqa: PLC0415

        if position < self._named:
            raise error
        self.left_out.add(reason_of(error), str(self.files[position]))


def find_pictures(places: Sequence[Path]) -> Pictures:
    """The files among `places`, and the pictures in the folders among them, at any depth."""
    from diptych.data.left_out import LeftOut, all_left_out  # noqa: PLC0415
    from diptych.data.sources.folder import FolderSource, list_folder  # noqa: PLC0415

    named: list[Path] = []
    found: list[Path] = []
    left_out: list[LeftOut] = []
    for place in places:
        if place.is_dir():
            listing = list_folder(place)
            FolderSource(place, listing)  # says what is in a folder without pictures
            found += [place / name for name in listing.images]
            left_out.append(listing.left_out)
        elif os.path.lexists(place):
            named.append(place)
        else:
            raise DataError(f"{place}: no such file or folder; check the path")
    return Pictures(named, found, all_left_out(left_out))
