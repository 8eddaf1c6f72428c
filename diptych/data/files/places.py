"""Read files on this machine (`Path`) or behind an address (`RemotePath`)."""

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

_AROUND = 1 << 16  # bytes: the least that a read of one example requests from a server
_SCAN = 1 << 22  # likewise, for a file that is read from its beginning to its end


class RandomAccess(Protocol):
    """A file for reads at any offset by any number of threads."""

    @property
    def path(self) -> Place: ...

    @property
    def version(self) -> Version: ...

    def version_now(self) -> Version: ...

    def read(self, offset: int, count: int, /) -> bytes:
        """Return `count` bytes from `offset`, or fewer at the end of the file."""


def place_of(location: str | os.PathLike[str]) -> Place:
    """Return an address if the location begins with a protocol such as `s3://`, else a path."""
    name = os.fspath(location)
    return RemotePath(name) if is_address(name) else Path(name)


def open_to_scan(place: Place) -> RandomAccess:
    """Open a file that will be read from its beginning to its end. Raises OSError or DataError."""
    return RemoteFile(place, _SCAN) if isinstance(place, RemotePath) else OpenFile(place)


@contextlib.contextmanager
def stream(place: Place) -> Iterator[tuple[BinaryIO, Version]]:
    """Open a file to read from its beginning; yield the file and its version. Raises DataError on failure."""
    if isinstance(place, RemotePath):
        with place.open() as file:
            yield file, place.version()
        return
    try:
        with open(place, "rb") as file:
            yield file, Version.of(file.fileno())
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None


def image_at(place: Place, where: str, folder: Place) -> Path | bytes:
    """Return the image that a row of a table names: its path, or its bytes if it is not on this machine.

    Raises:
        DataError: there is no such file.
    """
    if isinstance(place, RemotePath):
        return place.read_bytes()
    # `Path.is_file` would raise if a folder above may not be entered, or if the name is too long.
    if not os.path.isfile(place):
        raise DataError(f"{where}: no such image: {place}; paths are relative to {folder}")
    return place


@functools.lru_cache(maxsize=64)
def _open(place: Place) -> RandomAccess:
    # The cache belongs to the process and limits the open files. `pread` moves no file position, so a forked worker
    # can use the descriptors that it inherits; a spawned worker starts with an empty cache.
    return RemoteFile(place, _AROUND) if isinstance(place, RemotePath) else OpenFile(place)


def read_range(place: Place, offset: int, count: int, version: Version) -> bytes:
    """Read exactly `count` bytes of a file from an `offset` that belongs to this version of it.

    Raises:
        DataError: the file is gone, or has changed.
    """
    try:
        file = _open(place)
        if file.version != version:
            # The file may have been replaced since this process opened it.
            _open.cache_clear()
            file = _open(place)
        data = file.read(offset, count)
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if file.version_now() != version or len(data) != count:
        raise DataError(f"{place}: the file changed while it was in use; open the source again")
    return data
