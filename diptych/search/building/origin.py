"""Under which name an index remembers a source, and how overlapping sources are distinguished."""

import os
from collections.abc import Iterable

from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.errors import DataError


class Origin:
    """The source of a refresh, as the index spells it.

    A folder has many spellings: relative, with a slash at the end, through links. The index keeps the one that it met
    first, for the folder and for all that is in it, so that no picture is there twice. `recorded` are the names of the
    sources that it has.
    """

    def __init__(self, source: Source, recorded: Iterable[str]) -> None:
        self._typed = known_as(source)
        self._real = os.path.realpath(self._typed) if _is_path(self._typed) else ""
        real = ((os.path.realpath(name), name) for name in recorded if self._real and _is_path(name))
        self._recorded = sorted(real, key=lambda pair: len(pair[0]), reverse=True)
        self.name = self.spelled(self._typed)

    def spelled(self, uri: str) -> str:
        """A uri of the source as the index spells it."""
        if not self._real or not _is_inside(uri, self._typed):
            return uri
        real = self._real + uri[len(self._typed.rstrip(os.sep)) :]
        for recorded, name in self._recorded:
            if _is_inside(real, recorded):
                return name.rstrip(os.sep) + real[len(recorded.rstrip(os.sep)) :]
        return uri

    def overlapping(self) -> list[tuple[str, str]]:
        """The other recorded sources that may hold files of this one: each name, and the folder that both have."""
        found = []
        for real, name in self._recorded:
            if name != self.name and _is_inside(real, self._real):
                found.append((name, name))
            elif name != self.name and _is_inside(self._real, real):
                found.append((name, self.name))
        return found

    def owner(self, uri: str, recorded: str) -> str:
        """Which source a picture belongs to that the index has from the source `recorded`: of two folders, one inside
        the other, the outer one, so that the picture does not change hands with every refresh. A folder with another
        spelling keeps its pictures, whose uris begin with it."""
        if recorded == self.name or not is_file_of(uri, recorded):
            return self.name
        is_outer = _is_inside(self.name, recorded)
        is_respelled = not _is_inside(recorded, self.name) and self._real_of(recorded) is not None
        return recorded if is_outer or is_respelled else self.name

    def _real_of(self, recorded: str) -> str | None:
        """Where a recorded folder lies in truth, if it is inside this one."""
        return next(
            (real for real, name in self._recorded if name == recorded and _is_inside(real, self._real)), None
        )


def known_as(source: Source) -> str:
    """The name of a source wherever the next refresh is started from."""
    return os.path.abspath(source.name) if _is_path(source.name) else source.name


def is_file_of(uri: str, source: str) -> bool:
    """Whether a picture is a file in a folder that was indexed, and not listed by a table or part of another file."""
    return uri.startswith(source.rstrip(os.sep) + os.sep)


class NoExamples:
    """A source that is no longer there."""

    fingerprint = "0" * 64

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 0

    def __getitem__(self, position: int) -> Example:
        raise DataError(f"{self.name}: no longer there")

    def describe(self) -> str:
        return f"{self.name}: no longer there"


def _is_path(name: str) -> bool:
    return not name.startswith(("sample:", "scenes:")) and "://" not in name


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path is the folder, lies in it, or names a part of it (`shard.tar#key`)."""
    folder = folder.rstrip(os.sep)
    return path == folder or path.startswith((folder + os.sep, folder + "#"))
