"""Write files that are either the old version or the new one, whatever happens in between."""

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20
# From Linux's <fcntl.h> and <linux/fs.h>.
_AT_WORKING_FOLDER = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` only when it is whole and on the disk.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and renamed. The folder is flushed
    too, so that the rename survives a power cut. If the body raises, `path` does not change, and the temporary file is
    removed.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        # mkstemp makes files that only their owner may read; the result gets the mode that `open` would give it.
        os.chmod(name, 0o666 & ~_umask())
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with `atomic_write`; see `escaped`."""
    with atomic_write(path) as file:
        file.write(escaped(text))


def escaped(text: str) -> bytes:
    """Encode `text` as UTF-8, with bytes of file names that are not UTF-8 as `\\udce9`.

    Python keeps such bytes as lone surrogates. A JSON reader turns the escape back into the surrogate.
    """
    return text.encode("utf-8", "backslashreplace")


def put_in_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target` beside it, durably; an older folder of that name is deleted afterwards.

    Linux exchanges the two names in one step, so that a whole folder has the name at every moment. If the system or
    the file system cannot, the older one is first moved aside, to `folder`'s name with the suffix `.old`.
    """
    older: Path | None = None
    if target.exists():
        older = folder
        if not _exchange(folder, target):
            older = folder.with_suffix(".old")
            os.rename(target, older)
            os.rename(folder, target)
    else:
        os.rename(folder, target)
    sync_folder(target.parent)
    if older is not None:
        shutil.rmtree(older)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's list of names to the disk; Windows cannot, and nothing happens there."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str | os.PathLike[str], progress: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file: 64 hexadecimal digits. progress: receives the bytes of each block read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False, with nothing changed, if that is impossible."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_WORKING_FOLDER, names[0], _AT_WORKING_FOLDER, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
