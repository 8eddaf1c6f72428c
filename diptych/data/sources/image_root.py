"""Find the folder that the image paths of a table are relative to."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.data.files.places import Place
from diptych.data.files.remote import RemotePath
from diptych.errors import DataError, SettingsError

LOOKED_FOR = 100  # images of a table, evenly spread, that are looked for when it is opened

# The folders of images in the published archives of Flickr8k, Flickr30k and COCO. "Flicker8k" is the authors'
# spelling.
_USUAL = (
    *("Images", "images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset"),
    *("train2017", "val2017", "test2017", "train2014", "val2014", "test2014"),
)
_LISTED = 1000  # entries of a folder that are searched for a hint


@dataclass(frozen=True)
class ImageRoot:
    """The folder that image paths are relative to. remarks: say so if the user did not give this folder."""

    folder: Place
    remarks: tuple[str, ...] = ()


def find_image_root(
    table: str, beside: Place, given: Place | None, named: Sequence[tuple[str, str]]
) -> ImageRoot:
    """Return the folder of a table's images: the given one, else the table's own, else a usual one beside it.

    table: its name in messages. beside: the folder that it lies in.
    named: for some rows, the place of the row and the path that it names. Files behind an address are not looked for.

    Raises:
        DataError: none of the named images exists, or two of the usual folders hold them.
        SettingsError: the given folder does not exist.
    """
    folder = given if given is not None else beside
    if isinstance(folder, RemotePath):
        return ImageRoot(folder)
    if given is not None and not os.path.isdir(folder):
        raise SettingsError(
            f"image_root (--image-root) {folder}: no such folder; expected the folder that the image paths of "
            f"{table} are relative to"
        )
    names = [name for _, name in named]
    if not names or _holds(folder, names):
        return ImageRoot(folder)
    found = [] if given is not None else _distinct(place for place in _usual(folder) if _holds(place, names))
    if len(found) == 1:
        remark = f"{table}: its images are in {found[0]}; --image-root or image_root names another folder"
        return ImageRoot(found[0], (remark,))
    if found:
        raise DataError(
            f"{table}: its image names occur in {found[0]} and in {found[1]}; "
            "choose one of them with image_root (--image-root)"
        )
    where, name = named[0]
    looked_for = f"none of the {len(names):,} images that were looked for is in {folder}"
    searched = "" if given is not None else " or in a folder such as images/ or val2017/ beside the table"
    holder = next((place for place in _beside(folder) if _holds(place, names)), None)
    remedy = f"{holder} has some of them: " if holder is not None else ""
    raise DataError(
        f"{where}: no such image: {folder / name}; {looked_for}{searched}; "
        f"{remedy}give the folder that image paths are relative to with image_root (--image-root)"
    )


def spread(count: int, most: int = LOOKED_FOR) -> list[int]:
    """Return up to `most` of `count` row indices, evenly spread, the first among them."""
    looked_at = min(count, most)
    return [row * count // looked_at for row in range(looked_at)]


def _holds(folder: Path, names: Sequence[str]) -> bool:
    # `Path.is_file` would raise for a name that is too long.
    return any(os.path.isfile(folder / name) for name in names)


def _usual(folder: Path) -> Iterator[Path]:
    above = folder.absolute().parent
    for base in (folder, above):
        for name in _USUAL:
            yield base / name
            if name.lower() == "images":
                yield from (base / name / each for each in _USUAL)
    yield above


def _beside(folder: Path) -> Iterator[Path]:
    """Yield folders that the user may mean: those in the folder of the table and in the one above it."""
    for base in (folder, folder.absolute().parent):
        try:
            for _, entry in zip(range(_LISTED), base.iterdir(), strict=False):
                yield entry
        except OSError:
            continue


def _distinct(places: Iterator[Path]) -> list[Path]:
    """Return each folder once: on file systems that ignore case, `Images` and `images` are one."""
    return list({place.resolve(): place for place in places}.values())
