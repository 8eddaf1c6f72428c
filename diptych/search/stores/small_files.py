"""Read and write the small files beside a table, the manifest and the thumbnails, in a folder or a bucket."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from diptych.atomic import atomic_write, sync_folder
from diptych.errors import MissingExtraError, SearchIndexError

T = TypeVar("T")

THUMBNAILS = "thumbnails"

# Simultaneous requests to a bucket.
_CONNECTIONS = 16


class Files(Protocol):
    """Files by name; a name may contain slashes."""

    place: str

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, data: bytes) -> None:
        """Replace a file in one step; it is on the disk when this returns."""
        ...

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write files that can be recreated: each appears whole, but nothing waits for the disk."""
        ...

    def delete(self, names: Iterable[str]) -> None: ...

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all files anywhere under `folder`."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[None]: ...


class LocalFiles:
    """Files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        with self._changing(), atomic_write(self.folder / name) as file:
            file.write(data)

    def put(self, files: Mapping[str, bytes]) -> None:
        with self._changing():
            for folder in {os.path.dirname(name) for name in files}:
                os.makedirs(self.folder / folder, exist_ok=True)
            for name, data in files.items():
                stem, suffix = os.path.splitext(f"{self.folder}/{name}")
                # One process writes at a time, so the name is unique. It has the same suffix, so that what a kill
                # leaves behind is swept with such files.
                temporary = f"{stem}.tmp{suffix}"
                with open(temporary, "wb") as file:
                    file.write(data)
                os.replace(temporary, f"{stem}{suffix}")

    def delete(self, names: Iterable[str]) -> None:
        with self._changing():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()

    def names(self, folder: str) -> Iterator[str]:
        for top, _, files in os.walk(self.folder / folder):
            where = Path(top).relative_to(self.folder)
            yield from ((where / file).as_posix() for file in files)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        if self.folder.exists() and not self.folder.is_dir():
            raise SearchIndexError(f"{self.folder}: is a file; expected a folder for the index")
        with self._changing():
            new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            if new:
                sync_folder(self.folder.parent)
            handle = _open_lock(self.folder / "lock")
        with os.fdopen(handle, "rb") as file:
            try:
                _lock(file)
            except OSError:
                raise SearchIndexError(
                    f"{self.folder}: another process is writing to it; wait until it is done"
                ) from None
            yield

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SearchIndexError(
                f"{error.filename or self.folder}: cannot be written ({error.strerror or error}); make room or change "
                "the permissions, and run the same command again: what was written before is kept"
            ) from error


class BucketFiles:
    """Objects under `s3://bucket/prefix`.

    Writers are not locked out, because a bucket has no lock that ends with a killed process. The tables tolerate this;
    two simultaneous refreshes of one source do their work twice.
    """

    def __init__(self, place: str, options: Mapping[str, str]) -> None:
        try:
            from pyarrow import fs  # noqa: PLC0415 - optional
        except ImportError:
            raise MissingExtraError("pyarrow", "search", f"reading {place}") from None
        self.place = place
        self._root = place.removeprefix("s3://")
        endpoint = options.get("aws_endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
        keys = {
            "access_key": "aws_access_key_id",
            "secret_key": "aws_secret_access_key",
            "region": "aws_region",
        }
        chosen = {name: options[option] for name, option in keys.items() if option in options}
        if endpoint:
            scheme, _, host = endpoint.rpartition("://")
            chosen |= {"endpoint_override": host, "scheme": scheme or "https"}
        self._system: Any = fs.S3FileSystem(**chosen)
        self._selector: Any = fs.FileSelector
        self._is_file: Any = lambda found: found.type == fs.FileType.File

    def read(self, name: str) -> bytes | None:
        with self._asking():
            try:
                with self._system.open_input_stream(f"{self._root}/{name}") as file:
                    data: bytes = file.read()
                    return data
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        # An object appears when its upload is complete, and replaces the older one in one step.
        with self._asking(), self._system.open_output_stream(f"{self._root}/{name}") as file:
            file.write(data)

    def put(self, files: Mapping[str, bytes]) -> None:
        self._together(lambda pair: self.write(*pair), files.items())

    def delete(self, names: Iterable[str]) -> None:
        def remove(name: str) -> None:
            with self._asking(), contextlib.suppress(FileNotFoundError):
                self._system.delete_file(f"{self._root}/{name}")

        self._together(remove, names)

    def names(self, folder: str) -> Iterator[str]:
        selector = self._selector(f"{self._root}/{folder}", allow_not_found=True, recursive=True)
        with self._asking():
            found = self._system.get_file_info(selector)
        start = len(self._root) + 1
        yield from (one.path[start:] for one in found if self._is_file(one))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        yield

    def _together(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """Call `function` for many objects at a time, because each waits for a round trip."""
        with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="bucket") as pool:
            for _ in pool.map(function, items):
                pass

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SearchIndexError(f"{self.place}: {error}; check the address and the credentials") from error


def thumbnail_path(name: str) -> str:
    """Return the path of a thumbnail: at most some thousands in a folder, up to millions in all."""
    return f"{THUMBNAILS}/{name[:2]}/{name}.jpg"


def _open_lock(path: Path) -> int:
    """Open the lock file, and create it if needed; in a read-only folder a reader can still hold it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
