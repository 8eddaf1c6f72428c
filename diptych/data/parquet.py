"""Parquet tables, with paths or the images themselves (as the datasets hub stores them), through pyarrow.

Parquet is read a group of rows at a time. Groups that were read stay in memory up to a limit, which suits
paths and reading in order; whoever trains on images stored in Parquet in random order should pack them into
tar shards.
"""

import hashlib
import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from typing import Any

from diptych.data.columns import Columns, choose_columns, described_columns, example_from_row, image_path
from diptych.data.example import Example
from diptych.data.storage import OpenFile
from diptych.errors import DataError, MissingExtraError

try:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet
except ImportError:
    raise MissingExtraError("pyarrow", "data", "reading Parquet") from None

_CACHE_BYTES = 512 << 20


class ParquetSource:
    """Examples of a Parquet table: an image column with paths (relative to the table's folder), with encoded
    images, or with both, as a struct of `bytes` and `path`.
    """

    def __init__(self, path: Path, wanted: Columns) -> None:
        self.name = str(path)
        self._path = path
        self._start()
        columns = list(self._file.schema_arrow.names)
        self._columns = columns
        self._chosen = choose_columns(columns, wanted, str(path))
        self._check_type()
        metadata = self._file.metadata
        groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._ends = list(accumulate(groups))
        if not metadata.num_rows:
            raise DataError(f"{path}: no rows; expected one row an image")
        self._label_names = _label_names(self._file.schema_arrow, self._chosen.label)

    @property
    def fingerprint(self) -> str:
        """Over the file's size and its last 64 KiB, which describe every column of every group of rows."""
        file = OpenFile(self._path)
        size = file.version.size
        tail = file.read(max(0, size - (1 << 16)), 1 << 16)
        return hashlib.sha256(f"{size}\0".encode() + tail).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        where = f"{self._path}, row {position + 1:,}"
        number = bisect_right(self._ends, position)
        first = self._ends[number - 1] if number else 0
        row: dict[str, Any] = self._group(number).slice(position - first, 1).to_pylist()[0]
        cell = row[self._chosen.image or ""]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        image = cell if isinstance(cell, bytes) else image_path(cell, self._path.parent, where)
        if isinstance(image, Path) and not image.is_file():
            raise DataError(f"{where}: no such image: {image}; paths are relative to the table's folder")
        label = row.get(self._chosen.label or "")
        if self._label_names and isinstance(label, int) and 0 <= label < len(self._label_names):
            row[self._chosen.label or ""] = self._label_names[label]
        key = f"{position}:{image.name}" if isinstance(image, Path) else str(position)
        return example_from_row(key, image, row, self._chosen, where)

    def describe(self) -> str:
        """What was found, in two lines."""
        groups = len(self._ends)
        return (
            f"{self.name}: {len(self):,} rows of Parquet in {groups:,} group{'' if groups == 1 else 's'}\n"
            f"{described_columns(self._columns, self._chosen)}"
        )

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
            self._file = parquet.ParquetFile(self._path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{self._path}: cannot be read as Parquet ({error})") from None

    def _check_type(self) -> None:
        kind = self._file.schema_arrow.field(self._chosen.image).type
        types = pyarrow.types
        if types.is_struct(kind):
            fields = {kind.field(number).name for number in range(kind.num_fields)}
            fits = bool(fields & {"bytes", "path"})
        else:
            fits = any(
                test(kind)
                for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
            )
        if not fits:
            raise DataError(
                f"{self._path}: the image column {self._chosen.image!r} has the type {kind}; expected "
                "paths, encoded images, or a struct of `bytes` and `path`; "
                "choose another with image_column (--image-column)"
            )

    def _group(self, number: int) -> Any:
        with self._lock:
            group = self._groups.get(number)
            if group is None:
                try:
                    # One thread: pyarrow's pool does not survive a fork.
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


def _label_names(schema: Any, label: str | None) -> list[str]:
    """The names behind numbered labels, where the file was written by the `datasets` library."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
