"""What a user typed, turned into labels, templates and picture files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.options import DEFAULT_MODEL, UsageError
from diptych.errors import DataError

if TYPE_CHECKING:
    from diptych.evaluation.labels import LabelSet


def read_classes(labels: str | None, file: Path | None) -> "LabelSet":
    """The classes, from exactly one of `--labels "cat,dog"` and `--labels-file FILE`."""
    from diptych.evaluation.labels import labels_from, read_labels  # noqa: PLC0415

    if labels is not None and file is None:
        return labels_from(labels)
    if file is not None and labels is None:
        return read_labels(file)
    raise UsageError('give the classes by exactly one of --labels "cat,dog" and --labels-file FILE')


def templates_for(model_name: str) -> tuple[str, ...]:
    """The words around a label that suit a model: captions were mere names for ours, sentences for others."""
    from diptych.evaluation.prompts import TEMPLATES  # noqa: PLC0415

    ours = model_name == DEFAULT_MODEL or (Path(model_name) / "diptych.json").is_file()
    return TEMPLATES["plain" if ours else "photo"]


def find_pictures(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files among `places`, and the pictures in the folders among them, at any depth."""
    from diptych.data.folder import FolderSource, list_folder  # noqa: PLC0415

    named: list[Path] = []
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            listing = list_folder(place)
            FolderSource(place, listing)  # says what is in a folder without pictures
            found += [place / name for name in listing.images]
        elif place.exists():
            named.append(place)
        else:
            raise DataError(f"{place}: no such file or folder; check the path")
    return named, found
