"""Check that the folder of an index is neither the source nor a folder of other things."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from diptych.errors import DataError, SearchIndexError
from diptych.search.stores.protocol import Database

_MANIFEST = "index.json"
# The files that a writer makes before the manifest: a killed first run leaves only these.
_OWN = re.compile(r"lock|images-\d{6}\.lance(\.sha256)?|index\.json.*|\..*", re.DOTALL)
_SHELF = re.compile("[0-9a-f]{2}")  # a folder of thumbnails
_LISTED = 3  # foreign names in the message


def check_separate(place: str, source: str) -> None:
    """Refuse an index in its own source, or in a folder that holds other things: the arguments may be swapped.

    place, source: as the user typed them. Addresses of buckets and databases are not folders, and pass.

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
            "is empty or does not exist yet"
        )


def _is_own(folder: Path, name: str) -> bool:
    if name == "thumbnails" and (folder / name).is_dir():
        return all(_SHELF.fullmatch(shelf) or shelf.startswith(".") for shelf in os.listdir(folder / name))
    return _OWN.fullmatch(name) is not None


def _is_index(folder: Path) -> bool:
    return (folder / _MANIFEST).is_file()


@contextlib.contextmanager
def leaving_no_empty_folder(place: str | Path | Database) -> Iterator[None]:
    """Remove the folder of a new index again if no image could be read."""
    is_new = isinstance(place, str | Path) and not Path(place).exists()
    try:
        yield
    except DataError:
        if is_new:
            shutil.rmtree(str(place), ignore_errors=True)
        raise
