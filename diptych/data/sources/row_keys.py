"""Make keys for a table's rows that stay the same when rows are added, removed or sorted.

The key of a row is the path of its image, as the table writes it. The second row that names a path has `/2` behind it,
which is not the path of a file. The key of an image inside a table is the hash of its bytes, whatever its name; rows
with equal bytes have equal keys.
"""

import hashlib
from array import array

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int32]


class NamedPaths:
    """The paths that the rows of a table name, as hashes of eight bytes."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, path: str) -> None:
        """Add the path of the next row; empty if the row has none."""
        digest = hashlib.blake2b(path.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest, "little", signed=True))

    def earlier(self) -> Integers:
        """Return (n,): how many earlier rows name the same path as each row; empty if no path is named twice."""
        hashes = np.frombuffer(self._hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        begins = np.ones(len(hashes), np.bool_)
        begins[1:] = hashes[order[1:]] != hashes[order[:-1]]
        first = np.flatnonzero(begins)
        counts = np.diff(first, append=len(hashes))
        earlier = np.empty(len(hashes), np.int32)
        earlier[order] = np.arange(len(hashes)) - np.repeat(first, counts)
        return earlier if earlier.any() else np.empty(0, np.int32)


def path_key(path: str, earlier: Integers, row: int) -> str:
    """Return the key of a row that names `path`. earlier: see `NamedPaths`."""
    before = int(earlier[row]) if len(earlier) else 0
    return f"{path.strip()}/{before + 1}" if before else path.strip()


def content_key(image: bytes) -> str:
    """Return the key of a row that holds its image: 32 hexadecimal digits."""
    return hashlib.blake2b(image, digest_size=16).hexdigest()
