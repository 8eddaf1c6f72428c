"""Read PyTorch's zip archives, `torch.save` files and TorchScript modules, without PyTorch's loaders.

Both contain a pickle (`data.pkl`) that describes the tensors, and one file of raw numbers for each storage. Here
`pickle_reader` reads the pickle, so a tensor is first only a description (storage, offset, sizes, strides), which is
checked against the sizes of the stored files. The code of a TorchScript module is never opened.
"""

import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.errors import CheckpointError
from diptych.models.image_model import DESCRIPTION
from diptych.weights.foreign.pickle_reader import Builder, InertObject, Name, PickleReader
from diptych.weights.tensor_files import Entry

_MOST_MEMBERS = 100_000
_MOST_PICKLE_BYTES = 16 << 20  # the published models need less than one million
_DEEPEST = 64  # modules inside modules
_ENCRYPTED = 0x1

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _Storage:
    member: str
    dtype: torch.dtype
    count: int  # of numbers


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor's numbers in an archive."""

    storage: _Storage
    offset: int  # in numbers
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in numbers

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize


class ArchivedTensors:
    """The tensors of an archive by name, as a `TensorFile`.

    is_torchscript: whether the archive is a TorchScript module, and not a file of `torch.save`.
    description: the description of the model in a state dict of Diptych (JSON); None if there is none.
    """

    def __init__(self, archive: "Archive", tensors: Mapping[str, StoredTensor]) -> None:
        self._archive = archive
        self._tensors = tensors
        self.is_torchscript = archive.is_torchscript
        self.description = _description(archive.metadata)
        # Many names may refer to one storage; more numbers than the file has would fill the memory.
        total, size = sum(stored.bytes for stored in tensors.values()), archive.path.stat().st_size
        if total > size:
            raise CheckpointError(
                f"{archive.path}: its tensors add up to {total} bytes, but the file has {size}; it was refused"
            )
        self.entries = {name: Entry(stored.storage.dtype, stored.shape) for name, stored in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._archive.read(self._tensors[name])


class Archive:
    """An open archive. content: the object in its pickle, with `StoredTensor` in place of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # It stays open as long as the archive, because tensors are read on demand.
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise CheckpointError(
                f"{path}: is not a whole zip archive ({error}); it is damaged or was cut short: fetch it again"
            ) from None
        self._members = self._check_members()
        self._root = self._find_root()
        self.is_torchscript = f"{self._root}constants.pkl" in self._members
        if self._optional(f"{self._root}byteorder", b"little") != sys.byteorder.encode():
            raise CheckpointError(
                f"{path}: was written on a machine with the other byte order; convert it there"
            )
        pickle = self._contents(f"{self._root}data.pkl", _MOST_PICKLE_BYTES)
        reader = PickleReader(pickle, f"{path}: data.pkl", self._resolve, self._persistent)
        self.content = reader.read()
        self.metadata = reader.states  # of its dictionaries

    def read(self, stored: StoredTensor) -> Tensor:
        """Read a tensor into memory of its own."""
        if not prod(stored.shape):
            return torch.empty(stored.shape, dtype=stored.storage.dtype)
        member = stored.storage.member
        raw = bytearray(self._contents(member, self._members[member].file_size))
        flat = torch.frombuffer(raw, dtype=stored.storage.dtype)
        tensor = flat.as_strided(stored.shape, stored.stride, stored.offset)
        return tensor.clone(memory_format=torch.contiguous_format)

    def _check_members(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        size = self.path.stat().st_size
        if len(infos) > _MOST_MEMBERS:
            raise CheckpointError(f"{self.path}: has {len(infos)} members; expected at most {_MOST_MEMBERS}")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if info.filename in members:
                raise CheckpointError(
                    f"{self.path}: holds two members named {info.filename!r}; it was refused"
                )
            members[info.filename] = info
        total = sum(info.compress_size for info in infos)
        if total > size:
            raise CheckpointError(
                f"{self.path}: its members add up to {total} bytes, more than the {size} of the file; it was refused"
            )
        return members

    def _find_root(self) -> str:
        pickles = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self.path}: is a zip archive, but not one of PyTorch's (expected one FOLDER/data.pkl, found "
                f"{len(pickles)}); expected an archive of torch.save or torch.jit.save, safetensors, or a folder"
            )
        return pickles[0].removesuffix("data.pkl")

    def _contents(self, name: str, most: int) -> bytes:
        info = self._members[name]
        # Only the code of a script is compressed, and it is never read.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(
                f"{self.path}: {name} is compressed, which PyTorch never does; it was refused"
            )
        if info.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"{self.path}: {name} is encrypted; it was refused")
        if info.file_size > most:
            raise CheckpointError(f"{self.path}: {name} has {info.file_size} bytes; expected at most {most}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise CheckpointError(f"{self.path}: {name} is damaged ({error}); fetch the file again") from None

    def _optional(self, name: str, default: bytes) -> bytes:
        return self._contents(name, 64) if name in self._members else default

    def _resolve(self, module: str, name: str) -> Name:
        title = f"{module}.{name}"
        if module == "__torch__" or module.startswith("__torch__."):
            return Name(title)
        if module == "torch" and name in _STORAGES:
            return Name(name)
        if title not in _BUILDERS:
            raise CheckpointError(
                f"{self.path}: data.pkl refers to {title}, which a file of weights does not need; it was refused, "
                "and nothing in it was run. If you trust its source, save its tensors alone with "
                "safetensors.torch.save_file"
            )
        return Name(title, _BUILDERS[title])

    def _persistent(self, identity: Any) -> _Storage:
        tag, kind, key, _, count = identity
        if tag != "storage" or not isinstance(kind, Name) or not isinstance(key, str):
            raise ValueError("a persistent id is not that of a storage")
        member = f"{self._root}data/{key}"
        if member not in self._members:
            raise CheckpointError(f"{self.path}: storage {key!r} is missing; fetch the file again")
        dtype = _STORAGES[kind.title]
        found = self._members[member].file_size
        if type(count) is not int or count * dtype.itemsize != found:
            raise CheckpointError(
                f"{self.path}: storage {key!r} has {found} bytes; expected {count} numbers of {dtype.itemsize} bytes; "
                "fetch the file again"
            )
        return _Storage(member, dtype, count)


def flatten(content: Any, where: str) -> dict[str, StoredTensor]:
    """Return the tensors inside nested dictionaries and modules, by their dotted names."""
    found: dict[str, StoredTensor] = {}
    pending: list[tuple[str, int, Any]] = [("", 0, content)]
    visited = 0
    while pending:
        prefix, depth, value = pending.pop()
        visited += 1
        # References may form a loop, or so many paths that visiting them never ends.
        if visited > _MOST_MEMBERS or depth > _DEEPEST:
            raise CheckpointError(
                f"{where}: its modules are nested deeper or wider than a model's; it was refused"
            )
        if isinstance(value, StoredTensor):
            found[prefix] = value
        inner = value.state if isinstance(value, InertObject) else value
        if isinstance(inner, dict):
            for name, item in reversed(inner.items()):
                pending.append((f"{prefix}.{name}" if prefix else str(name), depth + 1, item))
    return found


def _description(states: Sequence[Any]) -> str | None:
    """Return the description that `CLIP.state_dict` put into its metadata, whatever wraps the model; None without."""
    for state in states:
        modules = state.get("_metadata") if isinstance(state, dict) else None
        for entry in modules.values() if isinstance(modules, dict) else ():
            found = entry.get(DESCRIPTION) if isinstance(entry, dict) else None
            if isinstance(found, str):
                return found
    return None


def _list(arguments: tuple[Any, ...]) -> list[Any]:
    (items,) = arguments
    return list(items)


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0]


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ValueError("a dictionary is made with contents")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, _Storage) or type(shape) is not tuple or type(stride) is not tuple:
        raise TypeError("a tensor is not described by its storage, sizes and strides")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *stride)) or len(shape) != len(stride):
        raise ValueError("a tensor has sizes, strides or an offset that are not counts")
    reach = _reach(shape, stride)
    if offset + reach > storage.count:
        raise ValueError(
            f"a tensor of shape {list(shape)} at {offset} reaches past its storage of {storage.count} numbers"
        )
    return StoredTensor(storage, offset, shape, stride)


def _reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return the count of numbers from a tensor's first to its last. Raises ValueError if it uses one twice."""
    if 0 in shape:
        return 0
    reach = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1 and step < reach:
            raise ValueError(f"a tensor of shape {list(shape)} with strides {list(stride)} overlaps itself")
        reach += (size - 1) * step
    return reach


_BUILDERS: dict[str, Builder] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch.device": _first,
    "torch.jit._pickle.build_boollist": _list,
    "torch.jit._pickle.build_doublelist": _list,
    "torch.jit._pickle.build_intlist": _list,
    "torch.jit._pickle.build_tensorlist": _list,
    "torch.jit._pickle.restore_type_tag": _first,
}
