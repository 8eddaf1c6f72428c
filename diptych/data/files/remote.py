"""Read files behind an address (`s3://`, `gs://`, `https://`, `memory://`, ...) through fsspec.

An address is requested only if a user named it as a source; addresses inside tables are refused (columns.py). fsspec
comes with torch; if the further package of a protocol (s3fs, aiohttp) is missing, the error names it.
"""

import contextlib
import hashlib
import posixpath
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from diptych.data.sources.storage import Version
from diptych.errors import DataError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_address(location: str) -> bool:
    """Return whether a location begins with a protocol."""
    return _ADDRESS.match(location) is not None


@dataclass(frozen=True, slots=True)
class RemotePath:
    """An address with the members of `pathlib.Path` that reading needs."""

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return posixpath.basename(self.address.rstrip("/"))

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.address.rstrip("/").rpartition("/")[0])

    def exists(self) -> bool:
        with _asking(self) as (system, path):
            return bool(system.exists(path))

    def is_dir(self) -> bool:
        with _asking(self) as (system, path):
            return bool(system.isdir(path))

    def is_file(self) -> bool:
        with _asking(self) as (system, path):
            return bool(system.isfile(path))

    def read_bytes(self) -> bytes:
        with _asking(self) as (system, path):
            return bytes(system.cat_file(path))

    def open(self) -> BinaryIO:
        """Open the file as a stream that can seek and reads ahead in blocks."""
        with _asking(self) as (system, path):
            return cast(BinaryIO, system.open(path, "rb"))

    def version(self) -> Version:
        """Return the size, and in place of a time a hash of what the file system reports (ETag, time, size)."""
        with _asking(self) as (system, path):
            size = system.info(path).get("size")
            if size is None:
                raise DataError(
                    f"{self}: the server does not report the size, so parts of the file cannot be read; "
                    "copy it to this machine first"
                )
            known = hashlib.sha256(str(system.ukey(path)).encode()).digest()
            return Version(int(size), int.from_bytes(known[:7], "little"))

    def glob(self) -> list["RemotePath"]:
        """Return the files that match the address as a pattern with `*`, `?` and `[...]`, sorted."""
        with _asking(self) as (system, path):
            return [RemotePath(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]


class RemoteFile:
    """A file behind an address, for reads at any offset by any number of threads.

    block: the least number of bytes of a request. The bytes behind a read are kept for the next read of the same
        thread, because the files of an example lie side by side.
    """

    def __init__(self, path: RemotePath, block: int) -> None:
        self.path = path
        self.version = path.version()
        self._block = block
        self._kept = threading.local()

    def version_now(self) -> Version:
        """Return the version that was opened: checking it before every read would cost a request."""
        return self.version

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`, or fewer at the end of the file."""
        start, data = getattr(self._kept, "bytes", (0, b""))
        if not (start <= offset and offset + count <= start + len(data)):
            start, data = offset, self._fetch(offset, max(count, self._block))
            self._kept.bytes = (start, data)
        return bytes(data[offset - start : offset - start + count])

    def _fetch(self, offset: int, count: int) -> bytes:
        end = min(offset + count, self.version.size)
        if offset >= end:
            return b""
        with _asking(self.path) as (system, path):
            data = bytes(system.cat_file(path, start=offset, end=end))
        if len(data) > end - offset:
            raise DataError(
                f"{self.path}: the server sends the whole file when asked for a part; "
                "copy it to this machine first"
            )
        return data


@contextlib.contextmanager
def _asking(place: RemotePath) -> Iterator[tuple[Any, str]]:
    """Yield the file system of an address and the path in it; turn errors of the body into DataError."""
    import fsspec  # noqa: PLC0415 - needed only for addresses

    try:
        yield fsspec.core.url_to_fs(str(place))
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{place}: {error}; install the package that is named here with pip") from None
    except Exception as error:  # each protocol has its own exceptions
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{place}: cannot be read ({reason}); check the address and the credentials"
        ) from error
