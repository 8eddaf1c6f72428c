"""Read and write Diptych's own checkpoints: a folder that describes its model completely.

    model.safetensors    the weights
    diptych.json         their description: kind, architecture, preprocessing, tokenizer, settings, history,
                         versions, and the SHA-256 of every other file
    state.safetensors    for resuming: the optimizer's tensors ...
    state.json           ... and its numbers

If several processes wrote it, each its own part, there are more files of tensors; see `sharded`.

Nothing in it is executable. A flipped bit is found before its file is parsed.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

import diptych
from diptych import config
from diptych.atomic import sha256_of
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.tokenizer import default_tokenizer
from diptych.weights.assembly import assemble, own_layout
from diptych.weights.folders import Json, Progress, new_folder, read_json, write_json, write_tensors
from diptych.weights.pieces import TABLE, PiecedFile
from diptych.weights.tensor_files import SafetensorsFile, TensorFile

FORMAT_VERSION = 1
MANIFEST = "diptych.json"
WEIGHTS = "model.safetensors"
STATE_TENSORS = "state.safetensors"
STATE_VALUES = "state.json"

T = TypeVar("T")
Precision = Literal["float32", "float16"]


@dataclass(frozen=True)
class TrainingState:
    """The state that a run needs besides the weights to resume."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]  # JSON


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of the weights in a checkpoint."""

    architecture: Json  # `config.plain` of the architecture, activation included
    preprocessing: Json  # `config.plain` of the preprocessing
    kind: str = "clip"  # or the approach that trained an encoder of another kind
    settings: Json = field(default_factory=dict)  # the resolved recipe; empty for converted weights
    history: tuple[Any, ...] = ()  # what happened to the weights, oldest first
    precision: Precision = "float32"  # of the stored matrices; vectors and scalars stay in float32


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `diptych.json`."""

    format_version: int
    kind: str  # "clip", or the approach that trained an encoder of another kind
    architecture: Json  # `config.plain` of the architecture, activation included
    preprocessing: Json  # `config.plain` of the preprocessing
    tokenizer: str  # fingerprint
    settings: Json  # the resolved recipe; empty for converted weights
    history: tuple[Any, ...]  # what happened to the weights, oldest first
    versions: Json  # of Python, torch and Diptych that wrote it
    precision: str  # of the stored matrices
    sha256: dict[str, str]  # of every other file


def save_checkpoint(
    folder: str | os.PathLike[str],
    model: nn.Module,
    preprocess: Mapping[str, Any],
    *,
    kind: str = "clip",
    settings: Mapping[str, Any] | None = None,
    history: Sequence[Any] | None = None,
    precision: Precision = "float32",
    state: TrainingState | None = None,
) -> Path:
    """Write `model` (which has an `architecture`) as a checkpoint folder; see `write_checkpoint`."""
    description = Description(
        architecture=config.plain(model.architecture),
        preprocessing=dict(preprocess),
        kind=kind,
        settings=dict(settings or {}),
        history=tuple(history or ()),
        precision=precision,
    )
    return write_checkpoint(folder, model.state_dict(), description, state)


def write_checkpoint(
    folder: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    description: Description,
    state: TrainingState | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a model's tensors as a checkpoint folder; an older one is replaced.

    The files are written into a temporary folder beside the target, flushed to the disk, and renamed, so the final
    name never holds half a checkpoint. With precision "float16" the matrices are halved; vectors and scalars, which
    are small and may have a wide range, stay in float32. progress: receives the bytes of each block written.

    Raises `CheckpointError`, and writes nothing, if a tensor holds NaN or infinity.
    """
    target = Path(folder)
    stored = {name: in_precision(value, description.precision) for name, value in weights.items()}
    refuse_not_finite({**stored, **(state.tensors if state is not None else {})}, target)
    with new_folder(target, MANIFEST) as work:
        sha256 = {WEIGHTS: write_tensors(work / WEIGHTS, stored, progress=progress)}
        if state is not None:
            sha256[STATE_TENSORS] = write_tensors(work / STATE_TENSORS, state.tensors, progress=progress)
            # A state may hold a best loss of infinity; the manifest, which other programs read, is plain JSON.
            sha256[STATE_VALUES] = write_json(work / STATE_VALUES, state.values, allow_nan=True)
        write_manifest(work, description, sha256)
    return target


def refuse_not_finite(tensors: Mapping[str, Tensor], target: Path) -> None:
    """Raise `CheckpointError` for the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor)):
            raise CheckpointError(
                f"{target}: tensor {name!r} holds NaN or infinity in {tensor.dtype}; nothing was written, and "
                "earlier checkpoints are unchanged: resume from one of them with a lower learning rate"
            )


def in_precision(tensor: Tensor, precision: Precision) -> Tensor:
    """Convert a tensor to its stored form: floating-point matrices are halved for "float16"."""
    halved = precision == "float16" and tensor.is_floating_point() and tensor.ndim > 1
    return tensor.to(torch.float16) if halved else tensor


def write_manifest(folder: Path, description: Description, sha256: Mapping[str, str]) -> None:
    """Write `diptych.json`, the last file of a checkpoint. sha256: of every other file, by its name."""
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=description.kind,
        architecture=description.architecture,
        preprocessing=description.preprocessing,
        tokenizer=default_tokenizer().fingerprint,
        settings=description.settings,
        history=description.history,
        versions={
            "diptych": diptych.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        precision=description.precision,
        sha256=dict(sorted(sha256.items())),
    )
    contents = asdict(manifest)
    write_json(folder / MANIFEST, {**contents, "checksum": _checksum(contents)})


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read `diptych.json` of a folder. Raises `CheckpointError` if it is missing, damaged or too new."""
    path = Path(folder) / MANIFEST
    contents = read_json(path)
    version = contents.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this Diptych reads ({FORMAT_VERSION}); "
            "upgrade with: pip install --upgrade diptych"
        )
    found = contents.pop("checksum", None)
    if found != _checksum(contents):
        raise CheckpointError(
            f"{path}: the contents do not match the checksum that was written with them; "
            "the file is damaged or was edited: restore it"
        )
    unknown = set(contents) ^ {field.name for field in fields(Manifest)}
    if version != FORMAT_VERSION or unknown:
        raise CheckpointError(f"{path}: not a manifest of format version {FORMAT_VERSION}: {sorted(unknown)}")
    return _built(Manifest, contents, str(path))


def holds_weights(folder: Path, name: str) -> bool:
    """Return whether the file `name` has the weights of the checkpoint in `folder`, or a part of them."""
    stem, written = Path(WEIGHTS).stem, read_manifest(folder).sha256
    return name in written and (name == WEIGHTS or name.startswith(f"{stem}-"))


def load_checkpoint(folder: str | os.PathLike[str]) -> tuple[ImageModel, Json, Manifest]:
    """Load the model (float32, CPU, evaluation mode), its preprocessing and its manifest.

    Each file's SHA-256 is verified before it is parsed. Raises `CheckpointError` for anything but a whole CLIP.
    """
    root = Path(folder)
    architecture, manifest = describe(root)
    weights = _tensors(root, WEIGHTS, manifest)
    return assemble(architecture, weights, own_layout, str(root / WEIGHTS)), manifest.preprocessing, manifest


def describe(root: Path) -> tuple[Architecture, Manifest]:
    """Return the architecture of the CLIP in a checkpoint, and the manifest.

    Raises `CheckpointError` for a model of another kind, and for one with another tokenizer.
    """
    manifest = read_manifest(root)
    if manifest.kind != "clip":
        raise CheckpointError(
            f"{root}: holds a model of the kind {manifest.kind!r}, which has no text tower to compare with; "
            "expected the kind 'clip'. As the start of a training run, name it in the recipe's [model] init"
        )
    if manifest.tokenizer != default_tokenizer().fingerprint:
        raise CheckpointError(
            f"{root}: was trained with another tokenizer ({manifest.tokenizer[:12]}...) than that of this Diptych "
            f"({default_tokenizer().fingerprint[:12]}...), so its text features would be meaningless; use the Diptych "
            "that wrote it"
        )
    return _built(Architecture, manifest.architecture, f"{root / MANIFEST} [architecture]"), manifest


def preprocess_of(folder: Path, manifest: Manifest) -> Preprocess:
    """Return the preprocessing in the manifest of a checkpoint."""
    return _built(Preprocess, manifest.preprocessing, f"{folder / MANIFEST} [preprocessing]")


def load_state(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Json]:
    """Load the training state of a checkpoint: tensors on the CPU, and values."""
    root = Path(folder)
    manifest = read_manifest(root)
    if STATE_VALUES not in manifest.sha256:
        raise CheckpointError(
            f"{root}: holds a model but no training state, so a run cannot be resumed from it; "
            "to start a new run from these weights, name the folder in the recipe's [model] init"
        )
    source = _tensors(root, STATE_TENSORS, manifest)
    values = read_json(_verify(root, STATE_VALUES, manifest))
    return {name: source.read(name) for name in source.entries}, values


def verify_checkpoint(folder: str | os.PathLike[str], progress: Progress | None = None) -> Manifest:
    """Check every file's SHA-256, and load nothing. Raises `CheckpointError` for the first that differs.

    progress: receives the bytes of each block read.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    for name in manifest.sha256:
        _verify(root, name, manifest, progress)
    return manifest


def _tensors(root: Path, name: str, manifest: Manifest) -> TensorFile:
    """Open the tensors of a file, or of the pieces that several processes wrote; each is verified first."""
    if name in manifest.sha256 or TABLE not in manifest.sha256:
        return SafetensorsFile(_verify(root, name, manifest))
    part = Path(name).stem
    table = read_json(_verify(root, TABLE, manifest)).get(part, {})
    pieces = [file for file in manifest.sha256 if file.startswith(f"{part}-")]
    paths = {file: _verify(root, file, manifest) for file in pieces}
    return PiecedFile(table, paths, str(root / TABLE))


def _verify(root: Path, name: str, manifest: Manifest, progress: Progress | None = None) -> Path:
    path = root / name
    if name not in manifest.sha256 or path.parent != root or not path.is_file():
        raise CheckpointError(f"{path}: is missing, so the checkpoint is incomplete: copy the folder again")
    found = sha256_of(path, progress)
    if found != manifest.sha256[name]:
        raise CheckpointError(
            f"{path}: SHA-256 is {found}, but {MANIFEST} says {manifest.sha256[name]}; "
            "the file is damaged: copy the folder again, or use an earlier checkpoint"
        )
    return path


def _built(schema: type[T], values: Json, where: str) -> T:
    try:
        return config.build(schema, values, where)
    except SettingsError as error:
        raise CheckpointError(str(error)) from None


def _checksum(contents: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the manifest's canonical JSON, because the manifest cannot list itself as a file."""
    text = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
