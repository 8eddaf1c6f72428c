"""Recognise the format of a model by its bytes and file names, and load it with the one reader of that format.

    folder with diptych.json             Diptych
    folder with open_clip_config.json    open_clip
    folder with config.json, type clip   transformers
    zip archive of PyTorch               OpenAI's published files, state dicts
    safetensors                          a state dict

`plain_files` finds the facts that a file of weights does not contain.
"""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Activation
from diptych.models.image_model import ImageModel
from diptych.weights import checkpoint
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
    """Load the model (float32, CPU, evaluation mode) and the preprocessing of a file or a folder.

    activation: of a plain file that does not contain it. Elsewhere it must equal the recorded one.
    like: for a plain file, the facts of a model of the same architecture.
    """
    folder = path if path.is_dir() else _folder_of_its_own(path)
    if folder is not None and like is not None:
        raise SettingsError(
            f"{path}: describes its own model; leave out like, which is only for plain files of weights"
        )
    if folder is None:
        model, preprocess = read_plain_file(path, _open(path), activation, like)
    else:
        model, preprocess = _load_folder(folder)
    if activation not in (None, model.architecture.activation):
        raise SettingsError(
            f"{path}: its activation is {model.architecture.activation!r}, not {activation!r}; leave out activation"
        )
    return model, preprocess


def is_own_model(path: Path) -> bool:
    """Return whether Diptych wrote a model: a folder with diptych.json, a file in it, or a state dict of Diptych.

    Raises `CheckpointError` for a file that does not hold weights.
    """
    if path.is_dir():
        return (path / checkpoint.MANIFEST).is_file()
    if configuration_beside(path) == checkpoint.MANIFEST:
        return True
    source = _open(path)
    return isinstance(source, ArchivedTensors) and source.description is not None


def _folder_of_its_own(path: Path) -> Path | None:
    """Return the folder whose weights are in the file `path`, or partly in it; None if there is no such folder."""
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
        return transformers.read_transformers_folder(folder)
    raise CheckpointError(
        f"{folder}: is not a model that Diptych reads; expected one of the files {', '.join(_FOLDER_MARKS)} in it"
    )


def _open(path: Path) -> TensorFile:
    """Open the tensors of a file, whose first bytes give its format."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    size = path.stat().st_size
    if start.startswith(_ZIP):
        return archived_state(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return SafetensorsFile(path)
    if start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path}: is a pickle from before PyTorch 1.6, which cannot be read without running it. If you trust its "
            "source, convert it: torch.save(torch.load(OLD, weights_only=True), NEW)"
        )
    raise CheckpointError(
        f"{path}: {size} bytes that start with {start!r}; expected a zip archive of PyTorch, a safetensors file, or a "
        "folder. A download that ended early, or a web page saved in its place, looks like this: fetch it again"
    )
