"""The files of an index, and the order in which they are written.

    index.json            which generation counts, the model that filled it, the hashes of the two files below
    vectors-000007.npy    (count, dim) float16, unit length
    items-000007.jsonl    row for row with the vectors: id, uri, source, caption, size, mtime_ns, sha256
    work/                 what an unfinished refresh has embedded so far

A generation is written whole, under a new number, before `index.json` is replaced; only then do the old files
go. So a reader, and a machine that loses power, finds the old generation or the new one, and never a mixture.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diptych import config
from diptych.atomic import atomic_write, sha256_of, sync_folder, write_text
from diptych.errors import SearchIndexError, SettingsError

FORMAT_VERSION = 1
MANIFEST = "index.json"
WORK = "work"

Half = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of an index, and what tells whether it has changed."""

    id: str  # of the uri, so that it stays when the picture is embedded again
    uri: str
    source: str  # the data that it came from
    caption: str | None
    size: int  # bytes
    mtime_ns: int | None  # of the file; None for a picture inside something else
    sha256: str  # of the bytes that were embedded

    def to_line(self) -> bytes:
        return (
            json.dumps(dataclasses.asdict(self), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        )

    def at(self, size: int, mtime_ns: int) -> bool:
        """Whether a file of this size and time is taken for the one that was embedded."""
        return (self.size, self.mtime_ns) == (size, mtime_ns)

    @classmethod
    def from_line(cls, line: bytes) -> "Item":
        return cls(**json.loads(line.decode("utf-8", "surrogatepass")))


@dataclass(frozen=True)
class Manifest:
    """What `index.json` says."""

    format_version: int
    generation: int
    model: str  # its name, for messages
    fingerprint: str  # of the model: two that differ are never mixed
    dim: int
    count: int
    sha256: dict[str, str]  # file name to 64 hexadecimal digits
    skipped: dict[
        str, dict[str, int]
    ]  # source, reason, number of its pictures that the last refresh left out

    @property
    def vectors_name(self) -> str:
        return f"vectors-{self.generation:06}.npy"

    @property
    def items_name(self) -> str:
        return f"items-{self.generation:06}.jsonl"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an index, or None where there is none.

    Raises:
        SearchIndexError: it is damaged, or of a later format.
    """
    file = folder / MANIFEST
    try:
        values = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise SearchIndexError(
            f"{file}: damaged ({error}); build the index again in another folder"
        ) from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise SearchIndexError(
            f"{file}: format version {version!r}; this Diptych reads {FORMAT_VERSION}; "
            "use the Diptych that wrote it, or build the index again in another folder"
        )
    try:
        return config.build(Manifest, values, str(file))
    except SettingsError as error:
        raise SearchIndexError(f"{error}; build the index again in another folder") from None


def open_vectors(folder: Path, manifest: Manifest) -> Half:
    """The vectors of a generation, mapped into memory."""
    file = folder / manifest.vectors_name
    try:
        vectors: Half = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise SearchIndexError(
            f"{file}: damaged ({error}); build the index again in another folder"
        ) from None
    if vectors.shape != (manifest.count, manifest.dim) or vectors.dtype != np.float16:
        raise SearchIndexError(
            f"{file}: {vectors.dtype} {vectors.shape}; expected float16 ({manifest.count}, {manifest.dim}); "
            "build the index again in another folder"
        )
    return vectors


def read_items(file: Path) -> list[Item]:
    """Every item of a generation, in order."""
    items: list[Item] = []
    with file.open("rb") as lines:
        for line in lines:
            try:
                items.append(Item.from_line(line))
            except (ValueError, TypeError) as error:
                raise SearchIndexError(
                    f"{file}, line {len(items) + 1}: damaged ({error}); build the index again in another folder"
                ) from None
    return items


def write_generation(folder: Path, manifest: Manifest, rows: Iterable[tuple[Item, Half]]) -> Manifest:
    """Write `rows` as the generation that `manifest` names, and make it the one that counts.

    The manifest's hashes are filled in; the older generation is removed at the end.
    """
    header = {"descr": "<f2", "fortran_order": False, "shape": (manifest.count, manifest.dim)}
    names = manifest.vectors_name, manifest.items_name
    with atomic_write(folder / names[0]) as vectors, atomic_write(folder / names[1]) as items:
        np.lib.format.write_array_header_1_0(vectors, header)
        for item, vector in rows:
            items.write(item.to_line())
            vectors.write(vector.astype("<f2", copy=False).tobytes())
    whole = dataclasses.replace(manifest, sha256={name: sha256_of(folder / name) for name in names})
    write_text(folder / MANIFEST, json.dumps(config.plain(whole), indent=2, ensure_ascii=False) + "\n")
    remove_leftovers(folder, whole)
    return whole


def remove_leftovers(folder: Path, manifest: Manifest | None) -> None:
    """Delete what killed or replaced refreshes left: files of other generations, and half-written ones.

    A reader that has an older generation open keeps it until it closes it; where the system does not let such
    a file go, it goes with the next refresh.
    """
    keep = {manifest.vectors_name, manifest.items_name} if manifest else set()
    for pattern in ("vectors-*.npy", "items-*.jsonl", ".*.tmp"):
        for file in folder.glob(pattern):
            if file.name not in keep:
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    file.unlink()


class WorkArea:
    """Rows that a refresh has embedded, written as soon as they exist, so that a killed one goes on.

    Nothing waits for the disk here. A row counts when its line in `items.jsonl` is whole and its vector has
    the checksum that stands there, which also finds what a power cut has torn; rows count up to the first
    that fails.
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int) -> None:
        self._folder = folder / WORK
        self._row_size = 2 * dim
        self._open(json.dumps({"format_version": FORMAT_VERSION, "fingerprint": fingerprint, "dim": dim}))
        self.items = self._recover()

    def __enter__(self) -> "WorkArea":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._vectors.close()
        self._lines.close()

    def append(self, items: Sequence[Item], vectors: Half) -> None:
        """Add rows; they survive a kill from here on."""
        rows = [vector.astype("<f2").tobytes() for vector in vectors]
        self._vectors.seek(0, os.SEEK_END)
        self._vectors.write(b"".join(rows))
        self._vectors.flush()
        for item, row in zip(items, rows, strict=True):
            self._lines.write(b"%08x %s" % (zlib.crc32(row), item.to_line()))
        self._lines.flush()
        self.items.extend(items)

    def vector(self, row: int) -> Half:
        """(dim,) of one row."""
        return np.frombuffer(self._bytes(row), "<f2")

    def remove(self) -> None:
        """Delete the closed work area, when everything in it is in the index."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _bytes(self, row: int) -> bytes:
        self._vectors.seek(row * self._row_size)
        return self._vectors.read(self._row_size)

    def _open(self, header: str) -> None:
        head = self._folder / "work.json"
        if not head.is_file() or head.read_bytes() != header.encode():
            # Of another model, or half removed: nothing in it can be used.
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            write_text(head, header)
        self._vectors = (self._folder / "vectors.f16").open("a+b")
        self._lines = (self._folder / "items.jsonl").open("a+b")

    def _recover(self) -> list[Item]:
        items: list[Item] = []
        whole = 0
        self._lines.seek(0)
        for line in self._lines:
            row = self._bytes(len(items))
            if len(row) < self._row_size or not line.endswith(b"\n") or line[:8] != b"%08x" % zlib.crc32(row):
                break
            items.append(Item.from_line(line[9:]))
            whole += len(line)
        self._lines.truncate(whole)
        self._vectors.truncate(len(items) * self._row_size)
        return items


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only process that writes to an index; the folder is made when it is missing.

    Raises:
        SearchIndexError: another process is writing. Its lock goes with it, however it ends.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchIndexError(f"{folder}: is a file; expected a folder for the index")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if new:
        sync_folder(folder.parent)
    with (folder / "lock").open("a+b") as file:
        try:
            _lock(file)
        except OSError:
            raise SearchIndexError(
                f"{folder}: another process is writing to it; wait until it is done"
            ) from None
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
