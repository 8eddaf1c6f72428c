"""List the images of an index in about sixty bytes each: enough to see which images of a source are new."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diptych.data.sources.stray_bytes import original
from diptych.search.stores.protocol import VectorStore

_COLUMNS = ("id", "source", "bytes", "mtime_ns", "sha256", "told")
_ROW = np.dtype(
    [
        ("id", "V16"),
        ("sha256", "V16"),  # its first half
        ("told", "V8"),
        ("source", np.int32),
        ("bytes", np.int64),
        ("mtime_ns", np.int64),
    ]
)
_CHUNK = 8192


class Catalogue:
    """The rows of a table as they were read, by index.

    seen: marks the rows that the source still has. changed: marks the rows that were written since; their vectors no
    longer belong to the recorded bytes.
    """

    def __init__(self, store: VectorStore | None) -> None:
        self.store = store
        self.sources: list[str] = []
        parts = [] if store is None else [self._part(found) for found in store.scroll(_COLUMNS, chunk=_CHUNK)]
        self.rows = np.concatenate([*parts, np.empty(0, _ROW)])
        self.seen = np.zeros(len(self.rows), np.bool_)
        self.changed = np.zeros(len(self.rows), np.bool_)
        self._sizes = np.unique(self.rows["bytes"])
        self._by_id = Lookup(self.rows["id"])
        self._by_sha256 = Lookup(self.rows["sha256"])

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, id_: str) -> int | None:
        """Return the row of an image; None if it has none."""
        return next(self._by_id.find(bytes.fromhex(id_)), None)

    def find_bytes(self, half: bytes) -> int | None:
        """Return a row whose file has a hash that begins with these 16 bytes; None if there is none."""
        rows = self._by_sha256.find(half)
        return next((row for row in rows if not self.changed[row]), None)

    def has_size(self, size: int) -> bool:
        """Return whether any image has that many bytes; if none has, no hash is needed."""
        place = int(np.searchsorted(self._sizes, size))
        return place < len(self._sizes) and bool(self._sizes[place] == size)

    def has_stamp(self, row: int, size: int, mtime_ns: int) -> bool:
        """Return whether the image's file has that size in bytes and that modification time."""
        found = self.rows[row]
        return bool((found["bytes"], found["mtime_ns"]) == (size, mtime_ns))

    def id_of(self, row: int) -> str:
        return bytes(self.rows["id"][row]).hex()

    def half_sha256(self, row: int) -> bytes:
        """Return the first 16 bytes of the hash of an image's file."""
        return bytes(self.rows["sha256"][row])

    def source_of(self, row: int) -> str:
        return self.sources[int(self.rows["source"][row])]

    def told(self, row: int) -> str:
        return bytes(self.rows["told"][row]).hex()

    def of_source(self, name: str) -> NDArray[np.bool_]:
        """Return whether each row came from that source: (rows,), bool."""
        number = self.sources.index(name) if name in self.sources else -1
        mine: NDArray[np.bool_] = self.rows["source"] == number
        return mine

    def _part(self, found: dict[str, list[str | int]]) -> NDArray[np.void]:
        part = np.empty(len(found["id"]), _ROW)
        for name, length in (("id", 32), ("sha256", 32), ("told", 16)):
            digits = "".join(str(value)[:length] for value in found[name])
            part[name] = np.frombuffer(bytes.fromhex(digits), f"V{length // 2}")
        names = [original(str(name)) for name in found["source"]]
        self.sources += dict.fromkeys(name for name in names if name not in self.sources)
        numbers = {name: number for number, name in enumerate(self.sources)}
        part["source"] = [numbers[name] for name in names]
        part["bytes"], part["mtime_ns"] = found["bytes"], found["mtime_ns"]
        return part


class Lookup:
    """Rows by a key of 16 bytes: sorted by the first 8; the rest then distinguishes them."""

    def __init__(self, keys: NDArray[np.void]) -> None:
        self._keys = keys
        heads = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)[:, 0]
        self._order = np.argsort(heads, kind="stable")
        self._heads = heads[self._order]

    def find(self, key: bytes) -> Iterator[int]:
        head = np.frombuffer(key, np.uint64)[0]
        place = int(np.searchsorted(self._heads, head))
        while place < len(self._heads) and self._heads[place] == head:
            row = int(self._order[place])
            if bytes(self._keys[row]) == key:
                yield row
            place += 1
