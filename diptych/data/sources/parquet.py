"""Read Parquet tables, with paths or the images themselves (as the datasets hub stores them), through pyarrow.

Parquet is read one group of rows at a time. Groups stay in memory up to a limit. This suits tables of paths, and the
order of training (`parts` are the groups). To train on images in large groups, pack them into tar shards first, with
`diptych data pack`.
"""

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example
from diptych.data.files.places import Place, open_to_scan
from diptych.data.files.remote import RemotePath
from diptych.data.left_out import LeftOut
from diptych.data.sources.arrow_rows import arrow_rows
from diptych.data.sources.columns import Columns, described_columns
from diptych.data.sources.image_root import LOOKED_FOR
from diptych.data.subsets.joined import JoinedSource
from diptych.errors import DataError, MissingExtraError

try:
    import pyarrow
    from pyarrow import parquet
except ImportError:
    raise MissingExtraError("pyarrow", "data", "reading Parquet") from None

_CACHE_BYTES = 512 << 20
_IMG2DATASET = {"key", "status", "url"}  # the columns that identify its output


class ParquetSource:
    """The examples of a Parquet table.

    The image column has paths (relative to the table's folder), encoded images, or both, as a struct of `bytes` and
    `path`.

    In the output of img2dataset, rows whose `status` is not "success" have no image and are left out.
    """

    def __init__(self, path: Place, wanted: Columns, image_root: Place | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._start()
        metadata = self._file.metadata
        if not metadata.num_rows:
            raise DataError(f"{path}: no rows; expected one row per image")
        schema = self._file.schema_arrow
        self._rows = arrow_rows(
            schema,
            wanted,
            path,
            beside=path.parent,
            image_root=image_root,
            first_rows=self._first_rows,
            cells_of=self._cells_of,
        )
        groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._ends = list(accumulate(groups))
        self._kept = self._downloaded_rows() if set(self._rows.names) >= _IMG2DATASET else None
        if not len(self):
            raise DataError(
                f"{path}: none of its {metadata.num_rows:,} images was downloaded; fetch them again"
            )

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the number of examples of each group of rows."""
        ends = np.array(self._ends) if self._kept is None else np.searchsorted(self._kept, self._ends)
        return tuple(count for count in np.diff(ends, prepend=0).tolist() if count)

    @property
    def fingerprint(self) -> str:
        """Hash the file's size and its last 64 KiB, which describe every column of every group of rows."""
        file = open_to_scan(self._path)
        size = file.version.size
        tail = file.read(max(0, size - (1 << 16)), 1 << 16)
        return hashlib.sha256(f"{size}\0".encode() + tail).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._kept is None else len(self._kept)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        at = position if self._kept is None else int(self._kept[position])
        number = bisect_right(self._ends, at)
        first = self._ends[number - 1] if number else 0
        row = self._group(number).slice(at - first, 1).to_pylist()[0]
        return self._rows.example(at, row, f"{self._path}, row {at + 1:,}")

    @property
    def left_out(self) -> LeftOut:
        """Count the rows whose image img2dataset could not download, with remarks on how the table is read."""
        found = LeftOut(self._rows.remarks)
        found.add("image was not downloaded", count=self._ends[-1] - len(self))
        return found

    def describe(self) -> str:
        """Summarise what was found, in a few lines."""
        groups = len(self._ends)
        lines = [
            f"{self.name}: {len(self):,} rows of Parquet in {groups:,} group{'' if groups == 1 else 's'}",
            described_columns(self._rows.names, self._rows.chosen),
            *(remark.removeprefix(f"{self.name}: ") for remark in self._rows.remarks),
        ]
        if failed := self._ends[-1] - len(self):
            lines.append(f"left out: {failed:,} rows whose image was not downloaded")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_file", "_lock", "_groups")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pyarrow.Table] = OrderedDict()
        try:
            self._file = parquet.ParquetFile(
                self._path.open() if isinstance(self._path, RemotePath) else self._path
            )
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{self._path}: cannot be read as Parquet ({error})") from None

    def _first_rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        try:
            batches = self._file.iter_batches(LOOKED_FOR, columns=list(columns), use_threads=False)
            return list(next(batches).to_pylist())
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{self._path}, row group 0: damaged ({error})") from None

    def _cells_of(self, column: str) -> Iterator[Any]:
        for number in range(self._file.metadata.num_row_groups):
            try:
                group = self._file.read_row_group(number, columns=[column], use_threads=False)
                yield from group.column(0).to_pylist()
            except (OSError, pyarrow.ArrowException):
                # Reading one of its rows raises the error; the other groups remain usable.
                yield from [None] * self._file.metadata.row_group(number).num_rows

    def _downloaded_rows(self) -> npt.NDArray[np.int64]:
        status = self._file.read(["status"], use_threads=False)["status"].to_pylist()
        return np.flatnonzero(np.array([value == "success" for value in status], bool))

    def _group(self, number: int) -> Any:
        with self._lock:
            group = self._groups.get(number)
            if group is None:
                try:
                    # One thread, because pyarrow's pool does not survive a fork.
                    group = self._file.read_row_group(number, use_threads=False)
                except (OSError, pyarrow.ArrowException) as error:
                    raise DataError(f"{self._path}, row group {number}: damaged ({error})") from None
                self._groups[number] = group
                while (
                    len(self._groups) > 1
                    and sum(each.nbytes for each in self._groups.values()) > _CACHE_BYTES
                ):
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return group


def open_parquet(
    paths: Sequence[Place], wanted: Columns, name: str, image_root: Place | None = None
) -> ParquetSource | JoinedSource:
    """Open one Parquet table, or several with different names as one source.

    Raises:
        DataError: a table is damaged or empty, or lacks an image column; or two tables have the same name.
    """
    tables = [ParquetSource(path, wanted, image_root) for path in paths]
    return tables[0] if len(tables) == 1 else JoinedSource(tables, [path.stem for path in paths], name=name)
