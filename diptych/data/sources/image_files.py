"""Image files that a user names, and those in the folders that a user names."""

import os
from collections.abc import Sequence
from pathlib import Path

from diptych.data.left_out import LeftOut, all_left_out
from diptych.data.reasons import reason_of
from diptych.data.sources.folder import FolderSource, list_folder
from diptych.errors import DataError, ImageError


class ImageFiles:
    """The paths of images, the named ones first.

    left_out: what is in the folders and not used, images that cannot be read included once `leave_out` got them.
    """

    def __init__(self, named: Sequence[Path], found: Sequence[Path], left_out: LeftOut) -> None:
        self.files = [*named, *found]
        self.left_out = left_out
        self._named = len(named)

    def leave_out(self, position: int, error: ImageError) -> None:
        """Count an image of a folder that cannot be read; raise the error of one that was named."""
        if position < self._named:
            raise error
        self.left_out.add(reason_of(error), str(self.files[position]))


def find_image_files(places: Sequence[Path]) -> ImageFiles:
    """Return the files among `places`, and the images in the folders among them, at any depth.

    Raises:
        DataError: a place is not there, or a folder has no image.
    """
    named: list[Path] = []
    found: list[Path] = []
    left_out: list[LeftOut] = []
    for place in places:
        if place.is_dir():
            listing = list_folder(place)
            FolderSource(place, listing)  # says what is in a folder without images
            found += [place / name for name in listing.images]
            left_out.append(listing.left_out)
        elif os.path.lexists(place):
            named.append(place)
        else:
            raise DataError(f"{place}: no such file or folder; check the path")
    return ImageFiles(named, found, all_left_out(left_out))
