"""Folders that appear whole or not at all, and the JSON and tensors in them."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from diptych.atomic import sync_folder
from diptych.errors import CheckpointError

Json = dict[str, Any]

_MOST_JSON_BYTES = 64 << 20


@contextlib.contextmanager
def new_folder(target: Path, marker: str) -> Iterator[Path]:
    """A temporary folder beside `target` to write into, which takes its name when the body has ended well.

    An older folder of the same kind, which has a file named `marker`, is replaced; any other is refused.
    """
    if target.is_dir() and not (target / marker).is_file() and any(target.iterdir()):
        raise CheckpointError(f"{target}: is a folder with other files; name a new folder for the model")
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target}: is a file; a model is written as a folder: name another one")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield work
        os.chmod(work, 0o755)
        sync_folder(work)
        # A folder cannot be renamed over another: the older one steps aside, and is deleted last.
        aside = work.with_suffix(".old")
        if target.exists():
            os.rename(target, aside)
        os.rename(work, target)
        sync_folder(target.parent)
        if aside.exists():
            shutil.rmtree(aside)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file and flush it to the disk."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, str(path), dict(metadata) if metadata else None)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_json(path: Path, values: Mapping[str, Any], *, allow_nan: bool = False) -> None:
    """Write a JSON file and flush it to the disk."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n"
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Json:
    """The object in a JSON file; raises `CheckpointError` when it is missing, too large or not JSON."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise CheckpointError(
                f"{path}: larger than {_MOST_JSON_BYTES >> 20} MiB, which no description of a model is"
            )
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is not a whole model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); it is damaged: copy it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values
