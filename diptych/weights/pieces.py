"""Read tensors whose rows lie in several files, by the table `shards.json` of a sharded checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diptych.errors import CheckpointError
from diptych.weights.folders import Json
from diptych.weights.tensor_files import Entry, SafetensorsFile

TABLE = "shards.json"


@dataclass(frozen=True)
class Rows:
    """The rows of a tensor that one process holds: some of its first dimension, all, or none.

    values: (rows, ...); a tensor without dimensions is one piece.
    first: the index of its first row.
    shape: of the whole tensor.
    """

    values: Tensor
    first: int
    shape: tuple[int, ...]

    def table_entry(self, file: str) -> Json:
        """Return the entry of the table."""
        return {
            "file": file,
            "first": self.first,
            "rows": _rows(self.values.shape),
            "shape": list(self.shape),
        }


class PiecedFile:
    """The tensors of one part of a table ("model" or "state"), each joined when it is read.

    The table and the files must have been verified; this class checks that the pieces cover each tensor once.
    """

    def __init__(self, table: Mapping[str, Iterable[Json]], paths: Mapping[str, Path], where: str) -> None:
        self._files = {name: SafetensorsFile(path) for name, path in paths.items()}
        self._pieces: dict[str, list[str]] = {}
        self.entries: dict[str, Entry] = {}
        for name, pieces in table.items():
            try:
                self._add(name, list(pieces))
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{where}: tensor {name!r}: {error}; it was not written by Diptych"
                ) from None

    def _add(self, name: str, pieces: list[Json]) -> None:
        pieces.sort(key=lambda piece: (piece["first"], piece["rows"]))
        shape = tuple(pieces[0]["shape"])
        end = 0
        for piece in pieces:
            found = self._files[piece["file"]].entries[name]
            # The tensor has no dimensions, or the piece has some of its rows.
            expected = (piece["rows"], *shape[1:]) if shape else ()
            if tuple(piece["shape"]) != shape or found.shape != expected or piece["first"] != end:
                raise ValueError(f"{piece} does not fit {found} after row {end} of {list(shape)}")
            end += piece["rows"]
            self.entries.setdefault(name, Entry(found.dtype, shape))
            if found.dtype != self.entries[name].dtype:
                raise ValueError(
                    f"{piece['file']} has it in {found.dtype}, another file in {self.entries[name].dtype}"
                )
        if end != _rows(shape):
            raise ValueError(f"rows {end} to {_rows(shape)} are in no file")
        self._pieces[name] = [piece["file"] for piece in pieces]

    def read(self, name: str) -> Tensor:
        """Read one whole tensor into memory of its own."""
        parts = [self._files[file].read(name) for file in self._pieces[name]]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def join_tables(tables: Iterable[Mapping[str, Json]]) -> dict[str, list[Json]]:
    """Join the tables of all processes into one: for each tensor, its pieces."""
    whole: dict[str, list[Json]] = {}
    for table in tables:
        for name, piece in table.items():
            whole.setdefault(name, []).append(piece)
    return dict(sorted(whole.items()))


def describe_pieces(pieces: Mapping[str, Rows], file: str) -> dict[str, Json]:
    """Return the table of one process."""
    return {name: rows.table_entry(file) for name, rows in pieces.items()}


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1
