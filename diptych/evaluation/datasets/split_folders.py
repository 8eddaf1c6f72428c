"""A form that any set of classes may have: a folder for each split, and in it a folder of images for each class."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from diptych.data.sources.folder import FolderSource, list_folder
from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.evaluation.datasets.listed_images import Relabelled
from diptych.evaluation.datasets.set_classes import plain_spelling
from diptych.evaluation.zero_shot.class_labels import LabelSet

# What people call the folder of a split, in any case. Other splits are not kept in this form.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_NAMED = 5  # classes that a message names


def split_folders(folder: Path, split: str, spellings: Collection[str]) -> list[Path]:
    """Return the folders in `folder` that are called like a split and hold a folder of one of its classes.

    spellings: of the classes, as `class_spellings` returns them.
    """
    names = SPLITS.get(split, ())
    return [
        place
        for place in _folders_in(folder)
        if place.name.casefold() in names
        and any(plain_spelling(inner.name) in spellings for inner in _folders_in(place))
    ]


def open_split_folder(
    places: Sequence[Path], title: str, labels: LabelSet, spellings: Mapping[str, str]
) -> Relabelled:
    """Open the one folder of a split that `split_folders` found.

    title: of the dataset, for messages. labels, spellings: its classes, and what `class_spellings` returns for them.

    Raises:
        DataError: there are several; a folder is not one of the classes; or a class has no images.
    """
    if len(places) > 1:
        raise DataError(
            f"{places[0].parent}: has several folders of the same split ({', '.join(p.name for p in places)}); keep one"
        )
    place = places[0]
    listing = list_folder(place)
    found: set[str] = set()
    classes = f"{len(labels.names):,} classes of {title}"
    for folder in {name.rpartition("/")[0] for name in listing.images}:
        name = spellings.get(plain_spelling(folder)) if folder and "/" not in folder else None
        if name is None:
            raise DataError(
                f"{place / folder}: holds images, but is not the folder of one of the {classes} "
                f"({_named(labels, labels.names)}); rename the folder or move it away"
            )
        found.add(name)
    if absent := [name for name in labels.names if name not in found]:
        raise DataError(
            f"{place}: has no images of {len(absent):,} of the {classes} ({_named(labels, absent)}); expected a folder "
            "of images for each class: unpack the dataset again"
        )
    return Relabelled(FolderSource(place, listing), spellings, plain_spelling)


def remark_on_absent(source: Source, labels: LabelSet) -> str | None:
    """Return a remark on the classes that have no folder among the class folders of a source; None if all have one."""
    place = Path(source.name)
    there = {folder.name for folder in _folders_in(place)}
    absent = [name for name in labels.names if name not in there]
    if not absent:
        return None
    return (
        f"{place}: has no folder for {len(absent):,} of the {len(labels.names):,} classes ({_named(labels, absent)}); "
        "a mean over classes is over the others"
    )


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(inner for inner in folder.iterdir() if inner.is_dir())
    except OSError:
        return []


def _named(labels: LabelSet, names: Sequence[str]) -> str:
    """Return some names of classes, with the words of those that are called otherwise."""
    words = dict(zip(labels.names, labels.phrases, strict=True))
    shown = [name if words[name][0] == name else f"{name} ({words[name][0]})" for name in names[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > _NAMED else "")
