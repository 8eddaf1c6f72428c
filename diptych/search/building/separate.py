"""The folder of an index is nobody else's: it is not a folder of images, and not the source itself."""

import os
import re
from pathlib import Path

from diptych.errors import SearchIndexError

_MANIFEST = "index.json"
# What a writer makes before the manifest: a first run that was killed leaves no more than these.
_OWN = re.compile(r"lock|images-\d{6}\.lance(\.sha256)?|index\.json.*|\..*", re.DOTALL)
_SHELF = re.compile("[0-9a-f]{2}")  # a folder of thumbnails
_LISTED = 3  # of the names that are not an index's, in the message


def check_separate(place: str, source: str) -> None:
    """Refuse to make an index in a folder that holds other things, or of itself: its two arguments may be swapped.

    place, source: as they were typed. Addresses of buckets and databases are not folders, and pass.

    Raises:
        SearchIndexError: the folder is the source, or exists, is not empty and is not an index.
    """
    folder = Path(place)
    if "://" in place or not folder.is_dir():
        return
    swapped = f"; were SOURCE and --index swapped? {source} is an index" if _is_index(Path(source)) else ""
    if os.path.exists(source) and os.path.samefile(folder, source):
        raise SearchIndexError(
            f"{place}: is the source itself; expected a folder of its own for the index: diptych index {source} "
            f"--index {place.rstrip(os.sep)}.index"
        )
    if _is_index(folder):
        return
    others = sorted(name for name in os.listdir(folder) if not _is_own(folder, name))
    if others:
        names = ", ".join(others[:_LISTED]) + (", ..." if len(others) > _LISTED else "")
        raise SearchIndexError(
            f"{place}: holds other things ({names}) and is not an index{swapped}; expected an index, or a folder that "
            "is empty or not there yet"
        )


def _is_own(folder: Path, name: str) -> bool:
    if name == "thumbnails" and (folder / name).is_dir():
        return all(_SHELF.fullmatch(shelf) or shelf.startswith(".") for shelf in os.listdir(folder / name))
    return _OWN.fullmatch(name) is not None


def _is_index(folder: Path) -> bool:
    return (folder / _MANIFEST).is_file()
