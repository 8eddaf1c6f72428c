"""Compact lists of strings, and reads from the middle of a file, for all sources."""

import os
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Strings:
    """An immutable list of strings in one buffer.

    A string takes about eight bytes more than its UTF-8, instead of about sixty in a Python list. So a source of
    millions of rows stays small, and cheap to send to a worker process.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        buffer = bytearray()
        ends = array("q", [0])
        for value in values:
            # File names that are not valid Unicode contain surrogates, which must survive.
            buffer += value.encode("utf-8", "surrogatepass")
            ends.append(len(buffer))
        self._buffer = bytes(buffer)
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> str:
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        return self._buffer[self._ends[position] : self._ends[position + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))


class Version(NamedTuple):
    """The state of a file: its size in bytes, and the time of its last change in nanoseconds."""

    size: int
    modified: int

    @classmethod
    def of(cls, descriptor: int) -> "Version":
        status = os.fstat(descriptor)
        return cls(status.st_size, status.st_mtime_ns)


class OpenFile:
    """A file opened for reads at any offset by any number of threads; closed with its last reference."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = -1
        self._descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        )
        self.path = Path(path)
        self.version = Version.of(self._descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def version_now(self) -> Version:
        """Return the current version of the file, which may have been overwritten since it was opened."""
        return Version.of(self._descriptor)

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, or fewer at the end of the file."""
        data = _pread(self._descriptor, count, offset)
        if len(data) == count or not data:
            return data
        # Linux returns at most 2 GiB from one call; other file systems may return less than asked.
        parts = [data]
        missing = count - len(data)
        while missing and (data := _pread(self._descriptor, missing, offset + count - missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)


if sys.platform == "win32":
    _position = threading.Lock()

    def _pread(descriptor: int, count: int, offset: int) -> bytes:
        with _position:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)

else:
    _pread = os.pread
