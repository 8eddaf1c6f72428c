"""Files wherever they are: on this machine (`Path`) or behind an address (`RemotePath`)."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from diptych.data.files.remote import RemoteFile, RemotePath, is_address
from diptych.data.sources.storage import OpenFile, Version
from diptych.errors import DataError

Place: TypeAlias = Path | RemotePath

_AROUND = 1 << 16  # bytes that a read of one example asks a server for at least
_SCAN = 1 << 22  # likewise where a file is read from its beginning to its end


class RandomAccess(Protocol):
    """A file for reads at any place by any number of threads."""

    @property
    def path(self) -> Place: ...

    @property
    def version(self) -> Version: ...

    def version_now(self) -> Version: ...

    def read(self, offset: int, count: int, /) -> bytes:
        """`count` bytes from `offset`, or fewer at the end of the file."""


def place_of(location: str | os.PathLike[str]) -> Place:
    """A path, or an address where the location begins with a protocol such as `s3://`."""
    name = os.fspath(location)
    return RemotePath(name) if is_address(name) else Path(name)


def open_to_scan(place: Place) -> RandomAccess:
    """Open a file that will be read from its beginning to its end; OSError or DataError where that fails."""
    return RemoteFile(place, _SCAN) if isinstance(place, RemotePath) else OpenFile(place)


@contextlib.contextmanager
def stream(place: Place) -> Iterator[tuple[BinaryIO, Version]]:
    """A file to read from its beginning, and its version; DataError where it cannot be read."""
    if isinstance(place, RemotePath):
        with place.open() as file:
            yield file, place.version()
        return
    try:
        with open(place, "rb") as file:
            yield file, Version.of(file.fileno())
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from None


def image_at(place: Place, where: str, folder: Place) -> Path | bytes:
    """The image that a row of a table names: its path, or its bytes where it is not on this machine.

    Raises:
        DataError: there is no such file.
    """
    if isinstance(place, RemotePath):
        return place.read_bytes()
    # Not `Path.is_file`, which raises where a folder above may not be entered, or the name is too long.
    if not os.path.isfile(place):
        raise DataError(f"{where}: no such image: {place}; paths are relative to {folder}")
    return place


@functools.lru_cache(maxsize=64)
def _opened(place: Place) -> RandomAccess:
    # The cache is per process and keeps only so many files open. `pread` moves no file position, so descriptors
    # that a forked worker inherits are as good as its own; a spawned worker starts with an empty cache.
    return RemoteFile(place, _AROUND) if isinstance(place, RemotePath) else OpenFile(place)


def read_range(place: Place, offset: int, count: int, version: Version) -> bytes:
    """Exactly `count` bytes of a file, from an `offset` that was found out in this version of it.

    Raises:
        DataError: the file is gone, or is another one now.
    """
    try:
        file = _opened(place)
        if file.version != version:
            # The file may have been replaced since this process opened it.
            _opened.cache_clear()
            file = _opened(place)
        data = file.read(offset, count)
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from None
    if file.version_now() != version or len(data) != count:
        raise DataError(f"{place}: the file changed while it was in use; open the source again")
    return data
