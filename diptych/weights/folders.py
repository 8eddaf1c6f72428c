"""Write folders that appear whole or not at all, and the JSON and tensors in them."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.atomic import escaped, put_in_place, sync_folder
from diptych.errors import CheckpointError

Json = dict[str, Any]
Progress = Callable[[int], None]  # receives the number of bytes of each block

_MOST_JSON_BYTES = 64 << 20
_BLOCK = 4 << 20
# The safetensors library sorts by type first, in this order, so that every tensor is aligned.
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(_TYPES)}


@contextlib.contextmanager
def new_folder(target: Path, marker: str) -> Iterator[Path]:
    """Yield a temporary folder beside `target`, which takes its name if the body ends without an error.

    An older folder of the same kind, which has a file named `marker`, is replaced; any other is refused.
    """
    if target.is_dir() and not (target / marker).is_file() and any(target.iterdir()):
        raise CheckpointError(f"{target}: is a folder with other files; name a new folder for the model")
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target}: is a file, and a model is written as a folder; name another path")
    if not target.parent.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(target.parent.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield work
        os.chmod(work, 0o755)
        sync_folder(work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    put_in_place(work, target)


def sweep(parent: Path) -> None:
    """Remove the temporary folders that killed writers left in `parent`. No writer may be at work there.

    A folder that was moved aside for one that never took its name gets the name back.
    """
    for aside in parent.glob(".*.old"):
        target = parent / aside.name[1:].rsplit(".", 2)[0]
        if aside.is_dir() and not target.exists():
            os.rename(aside, target)
            sync_folder(parent)
    for leftover in (*parent.glob(".*.tmp"), *parent.glob(".*.old")):
        if leftover.is_dir():
            shutil.rmtree(leftover)


def remove_folder(folder: Path) -> None:
    """Delete a folder in one step: it loses its name first, and `sweep` removes what a kill leaves."""
    doomed = folder.with_name(f".{folder.name}.doomed.tmp")
    os.rename(folder, doomed)
    sync_folder(folder.parent)
    shutil.rmtree(doomed)


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Write a safetensors file, byte for byte as its library would, and flush it to the disk.

    Returns the SHA-256 of the bytes in memory, so that reading the file back verifies it. progress: called after each
    block; an error that it raises ends the writing.
    """
    ordered = sorted(tensors.items(), key=lambda item: (_ORDER[item[1].dtype], item[0]))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in _safetensors_blocks(ordered, metadata):
            digest.update(block)
            file.write(block)
            if progress is not None:
                progress(len(block))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _safetensors_blocks(
    tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str] | None
) -> Iterator[bytes | memoryview]:
    """Yield the file in blocks: the length of the header, the header, and the tensors one after the other."""
    header: Json = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = escaped(json.dumps(header, separators=(",", ":"), ensure_ascii=False))
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        whole = flat.numpy().data
        for start in range(0, len(whole), _BLOCK):
            yield whole[start : start + _BLOCK]


def write_json(path: Path, values: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    """Write a JSON file, and flush it to the disk. Returns its SHA-256."""
    text = escaped(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(text).hexdigest()


def read_json(path: Path) -> Json:
    """Read the object in a JSON file. Raises `CheckpointError` if it is missing, too large or not JSON."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise CheckpointError(
                f"{path}: larger than {_MOST_JSON_BYTES >> 20} MiB; expected a description of a model"
            )
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is not a whole model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); it is damaged: copy it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values
