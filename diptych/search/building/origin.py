"""Decide the name of a source in an index, and the source of images in overlapping folders."""

import os
from collections.abc import Iterable

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.errors import DataError


class Origin:
    """The source of a refresh, as the index spells it.

    A folder has many spellings: relative, with a slash at the end, through links. The index keeps the first one, for
    the folder and for everything in it, so that no image occurs twice. recorded: the names of the sources in the index.
    """

    def __init__(self, source: Source, recorded: Iterable[str]) -> None:
        self._typed = source_name(source)
        self._real = os.path.realpath(self._typed) if _is_path(self._typed) else ""
        real = ((os.path.realpath(name), name) for name in recorded if self._real and _is_path(name))
        self._recorded = sorted(real, key=lambda pair: len(pair[0]), reverse=True)
        self.name = self.spelled(self._typed)

    def spelled(self, uri: str) -> str:
        """Return a uri of the source as the index spells it."""
        if not self._real or not _is_inside(uri, self._typed):
            return uri
        real = self._real + uri[len(self._typed.rstrip(os.sep)) :]
        for recorded, name in self._recorded:
            if _is_inside(real, recorded):
                return name.rstrip(os.sep) + real[len(recorded.rstrip(os.sep)) :]
        return uri

    def overlapping(self) -> list[tuple[str, str]]:
        """List the other recorded sources that may hold files of this one: each name, and the common folder."""
        found = []
        for real, name in self._recorded:
            if name != self.name and _is_inside(real, self._real):
                found.append((name, name))
            elif name != self.name and _is_inside(self._real, real):
                found.append((name, self.name))
        return found

    def owner(self, uri: str, recorded: str) -> str:
        """Return the source of an image that the index has from the source `recorded`.

        If one folder lies inside the other, it is the outer one, so that the image does not change its source with
        every refresh. A folder with another spelling keeps its images, whose uris begin with it.
        """
        if recorded == self.name or not is_file_of(uri, recorded):
            return self.name
        is_outer = _is_inside(self.name, recorded)
        is_respelled = not _is_inside(recorded, self.name) and self._real_of(recorded) is not None
        return recorded if is_outer or is_respelled else self.name

    def _real_of(self, recorded: str) -> str | None:
        """Return the real path of a recorded folder inside this one; None if it is not inside."""
        return next(
            (real for real, name in self._recorded if name == recorded and _is_inside(real, self._real)), None
        )


def source_name(source: Source) -> str:
    """Return a name of a source that does not depend on the working folder."""
    return os.path.abspath(source.name) if _is_path(source.name) else source.name


def is_file_of(uri: str, source: str) -> bool:
    """Return whether an image is a file in an indexed folder, not a row of a table or a part of another file."""
    return uri.startswith(source.rstrip(os.sep) + os.sep)


class MissingSource:
    """An empty source in place of one that no longer exists."""

    fingerprint = "0" * 64

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 0

    def __getitem__(self, position: int) -> Example:
        raise DataError(f"{self.name}: no longer exists; check the path")

    def describe(self) -> str:
        return f"{self.name}: no longer exists"


def _is_path(name: str) -> bool:
    return not name.startswith(("sample:", "scenes:")) and "://" not in name


def _is_inside(path: str, folder: str) -> bool:
    """Return whether a path is the folder, lies in it, or names a part of it (`shard.tar#key`)."""
    folder = folder.rstrip(os.sep)
    return path == folder or path.startswith((folder + os.sep, folder + "#"))
