"""Read folders that the `datasets` library wrote with `save_to_disk`: Arrow streams, through pyarrow.

A folder holds `state.json` (the names of the Arrow files), `dataset_info.json`, `data-00000-of-00002.arrow` and so on.
A folder of several splits holds `dataset_dict.json` and one such folder per split. The files are memory-mapped:
nothing is loaded before it is used, and random access is as fast as the disk.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from diptych.data.example import Example
from diptych.data.files.places import Place
from diptych.data.left_out import LeftOut
from diptych.data.sources.arrow_rows import arrow_rows
from diptych.data.sources.columns import Columns, described_columns
from diptych.data.sources.image_root import LOOKED_FOR
from diptych.errors import DataError, MissingExtraError

try:
    import pyarrow
except ImportError:
    raise MissingExtraError("pyarrow", "data", "reading a dataset saved by `datasets`") from None


class SavedDataset:
    """The examples of a folder that `save_to_disk` wrote; the image column has the forms of `ParquetSource`."""

    def __init__(self, folder: Path, wanted: Columns, image_root: Place | None = None) -> None:
        self.name = str(folder)
        self._folder = folder
        state = _read_json(folder / "state.json")
        if state.get("_indices_data_files"):
            raise DataError(
                f"{folder}: is a selection of rows that is stored as a list of indices; "
                "call flatten_indices() before save_to_disk()"
            )
        try:
            self._paths = [folder / file["filename"] for file in state["_data_files"]]
        except (KeyError, TypeError):
            raise DataError(
                f"{folder / 'state.json'}: expected a list '_data_files' of objects with a 'filename'; save it again"
            ) from None
        self._start()
        if not len(self):
            raise DataError(f"{folder}: no rows; expected one row per image")
        schema = self._batches[0].schema
        self._rows = arrow_rows(
            schema,
            wanted,
            folder,
            beside=folder,
            image_root=image_root,
            first_rows=self._first_rows,
            cells_of=self._cells_of,
        )

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the number of examples of each file."""
        return tuple(count for count in self._counts if count)

    @property
    def left_out(self) -> LeftOut:
        """Return no reasons, with remarks on how the rows are read."""
        return LeftOut(self._rows.remarks)

    @property
    def fingerprint(self) -> str:
        """Hash `state.json`, which holds a fingerprint of the content, and the sizes of the files."""
        digest = hashlib.sha256((self._folder / "state.json").read_bytes())
        for path, count in zip(self._paths, self._counts, strict=True):
            digest.update(f"{path.name}\0{path.stat().st_size}\0{count}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        number = bisect_right(self._ends, position)
        first = self._ends[number - 1] if number else 0
        where = f"{self._folder}, row {position + 1:,}"
        try:
            row = self._batches[number].slice(position - first, 1).to_pylist()[0]
        except (pyarrow.ArrowException, ValueError) as error:
            raise DataError(f"{where}: damaged ({error}); save the dataset again") from None
        return self._rows.example(position, row, where)

    def describe(self) -> str:
        """Summarise what was found, in a few lines."""
        files = len(self._paths)
        return (
            f"{self.name}: {len(self):,} rows of a saved dataset in {files:,} file{'' if files == 1 else 's'}\n"
            f"{described_columns(self._rows.names, self._rows.chosen)}"
            + "".join("\n" + remark.removeprefix(f"{self.name}: ") for remark in self._rows.remarks)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("_batches", "_ends", "_counts")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _first_rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        batch = next(batch for batch in self._batches if batch.num_rows).slice(0, LOOKED_FOR)
        return list(batch.select(list(columns)).to_pylist())

    def _cells_of(self, column: str) -> Iterator[Any]:
        for batch in self._batches:
            yield from batch.column(column).to_pylist()

    def _start(self) -> None:
        self._batches: list[Any] = []
        self._counts: list[int] = []
        for path in self._paths:
            try:
                batches = list(pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))))
            except (OSError, pyarrow.ArrowException) as error:
                raise DataError(
                    f"{path}: cannot be read as an Arrow stream ({error}); save the dataset again"
                ) from None
            self._batches += batches
            self._counts.append(sum(batch.num_rows for batch in batches))
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))


def open_saved_dataset(folder: Path, wanted: Columns, image_root: Place | None = None) -> SavedDataset:
    """Open a folder of `save_to_disk`, or the only split in a folder of splits.

    Raises:
        DataError: there are several splits, or the folder is damaged.
        MissingExtraError: pyarrow is not installed.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _read_json(splits).get("splits")
        if not isinstance(names, list) or len(names) != 1:
            raise DataError(f"{folder}: holds the splits {names}; name one of them, such as {folder}/train")
        folder = folder / str(names[0])
    return SavedDataset(folder, wanted, image_root)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the dataset again") from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: is a JSON {type(value).__name__}; expected an object; save the dataset again"
        )
    return value
