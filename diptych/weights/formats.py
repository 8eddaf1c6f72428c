"""What a path holds, from its bytes and the names in it; one reader for each kind, none for another's.

    folder with diptych.json             Diptych
    folder with open_clip_config.json    open_clip
    folder with config.json, type clip   transformers
    zip archive of PyTorch               OpenAI's published files, state dicts
    safetensors                          a state dict

Where the facts come from that a file of weights does not hold: see `plain_files`.
"""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Activation
from diptych.models.image_model import ImageModel
from diptych.weights import checkpoint
from diptych.weights.folders import read_json
from diptych.weights.foreign import open_clip, transformers
from diptych.weights.foreign.archive import ArchivedTensors
from diptych.weights.foreign.openai import archived_state
from diptych.weights.foreign.plain_files import Facts, configuration_beside, read_plain_file
from diptych.weights.tensor_files import SafetensorsFile, TensorFile

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_FOLDER_MARKS = (checkpoint.MANIFEST, open_clip.CONFIG, transformers.CONFIG)


def load_path(
    path: Path, activation: Activation | None = None, like: Facts | None = None
) -> tuple[ImageModel, Preprocess]:
    """Return the model (float32, CPU, evaluation mode) and the preprocessing of a file or a folder.

    activation: of a plain file that does not say it. Elsewhere it must be the one that is said.
    like: for a plain file, the facts of a model of the same architecture.
    """
    folder = path if path.is_dir() else _folder_of_its_own(path)
    if folder is not None and like is not None:
        raise SettingsError(
            f"{path}: says itself what it is; leave like out, which is for plain files of weights"
        )
    if folder is None:
        model, preprocess = read_plain_file(path, _opened(path), activation, like)
    else:
        model, preprocess = _load_folder(folder)
    if activation not in (None, model.architecture.activation):
        raise SettingsError(
            f"{path}: its activation is {model.architecture.activation!r}, not {activation!r}; leave activation out"
        )
    return model, preprocess


def written_here(path: Path) -> bool:
    """Return whether Diptych wrote a model: a folder with diptych.json, a file in it, or a state dict of ours.

    Raises `CheckpointError` for a file that holds no weights.
    """
    if path.is_dir():
        return (path / checkpoint.MANIFEST).is_file()
    if configuration_beside(path) == checkpoint.MANIFEST:
        return True
    source = _opened(path)
    return isinstance(source, ArchivedTensors) and source.description is not None


def _folder_of_its_own(path: Path) -> Path | None:
    """The folder of which `path` is the file of weights, or one of several: to load either is the same."""
    folder, mark = path.parent, configuration_beside(path)
    readers = {
        checkpoint.MANIFEST: checkpoint.holds_weights,
        open_clip.CONFIG: open_clip.holds_weights,
        transformers.CONFIG: transformers.holds_weights,
    }
    return folder if mark is not None and readers[mark](folder, path.name) else None


def _load_folder(folder: Path) -> tuple[ImageModel, Preprocess]:
    if (folder / checkpoint.MANIFEST).is_file():
        model, _, manifest = checkpoint.load_checkpoint(folder)
        return model, checkpoint.preprocess_of(folder, manifest)
    if (folder / open_clip.CONFIG).is_file():
        return open_clip.read_open_clip_folder(folder)
    if (folder / transformers.CONFIG).is_file():
        kind = read_json(folder / transformers.CONFIG).get("model_type")
        if kind == "clip":
            return transformers.read_transformers_folder(folder)
        raise CheckpointError(
            f"{folder / transformers.CONFIG}: model_type is {kind!r}; of transformers' models, Diptych reads 'clip'"
        )
    raise CheckpointError(
        f"{folder}: holds none of {', '.join(_FOLDER_MARKS)}, so it is not a model that Diptych reads"
    )


def _opened(path: Path) -> TensorFile:
    """The tensors of a file, whose kind its first bytes tell."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    size = path.stat().st_size
    if start.startswith(_ZIP):
        return archived_state(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return SafetensorsFile(path)
    if start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path}: a pickle from before PyTorch 1.6, which cannot be read without running it. If you trust its "
            "source, convert it: torch.save(torch.load(OLD, weights_only=True), NEW)"
        )
    raise CheckpointError(
        f"{path}: {size} bytes that start with {start!r}; expected a zip archive of PyTorch, a safetensors file, or a "
        "folder. A download that ended early, or a web page saved in its place, looks like this: fetch it again"
    )
