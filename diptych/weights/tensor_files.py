"""Open files of named tensors; names, types and shapes are known before any tensor is allocated."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diptych.data.sources.stray_bytes import utf8_address
from diptych.errors import CheckpointError

# A CLIP has some 1,400 tensors and its training state a few times as many.
_MOST_TENSORS = 100_000

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """The type and the shape of one tensor in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFile(Protocol):
    """A file of tensors whose table of contents has been checked against the size of the file."""

    @property
    def entries(self) -> dict[str, Entry]:
        """Return the type and the shape of every tensor."""

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory of its own."""


class SafetensorsFile:
    """A safetensors file. The library refuses overlaps, holes and sizes that the file does not have."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # safetensors ships no type stubs for its handle
        self._handle: Any = _open(self.path)
        names = self._handle.keys()
        if len(names) > _MOST_TENSORS:
            raise CheckpointError(f"{path}: holds {len(names)} tensors; expected at most {_MOST_TENSORS}")
        self.entries = {name: self._entry(name) for name in names}

    def _entry(self, name: str) -> Entry:
        piece = self._handle.get_slice(name)
        kind = piece.get_dtype()
        if kind not in _DTYPES:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has the type {kind}; expected one of {', '.join(_DTYPES)}"
            )
        return Entry(_DTYPES[kind], tuple(piece.get_shape()))

    def read(self, name: str) -> Tensor:
        # The library may return a view of the mapped file, which would change with the file.
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor.clone()


class JoinedFiles:
    """Several tensor files read as one, for models that are stored in parts."""

    def __init__(self, homes: dict[str, TensorFile]) -> None:
        self._homes = homes
        self.entries = {name: home.entries[name] for name, home in homes.items()}

    def read(self, name: str) -> Tensor:
        return self._homes[name].read(name)


def _open(path: Path) -> Any:
    opener: Callable[..., Any] = safe_open
    try:
        with utf8_address(path) as address:
            return opener(address, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is not a whole safetensors file ({error}); it is damaged or was cut short: fetch it again"
        ) from None
