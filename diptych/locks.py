"""Let one process of this machine work at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive_lock(lock: Path) -> Iterator[None]:
    """Wait until no other process holds this lock file, and hold it.

    Windows has no such lock, and there nothing waits. So the work under the lock must be safe without it; at worst it
    is done twice.
    """
    if os.name == "nt":
        yield
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
