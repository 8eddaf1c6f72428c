"""What a path holds, from its bytes and the names in it; one reader for each kind, none for another's.

    folder with diptych.json             Diptych
    folder with open_clip_config.json    open_clip
    folder with config.json, type clip   transformers
    zip archive of PyTorch               OpenAI's published files, plain state dicts
    safetensors                          a plain state dict

Files alone do not say how their images are prepared; they are read as OpenAI's.
"""

from pathlib import Path

from diptych import config
from diptych.data.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.clip import CLIP
from diptych.weights import checkpoint, open_clip, transformers
from diptych.weights.folders import read_json
from diptych.weights.openai import load_archive, load_safetensors

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_FOLDER_MARKS = (checkpoint.MANIFEST, open_clip.CONFIG, transformers.CONFIG)


def load_path(path: Path) -> tuple[CLIP, Preprocess]:
    """The model (float32, CPU, evaluation mode) and the preprocessing of a file or a folder."""
    if path.is_dir():
        return _load_folder(path)
    model = _load_file(path)
    return model, Preprocess(model.visual.input_resolution)


def _load_folder(folder: Path) -> tuple[CLIP, Preprocess]:
    if (folder / checkpoint.MANIFEST).is_file():
        model, preprocess, _ = checkpoint.load_checkpoint(folder)
        try:
            return model, config.build(
                Preprocess, preprocess, f"{folder / checkpoint.MANIFEST} [preprocessing]"
            )
        except SettingsError as error:
            raise CheckpointError(str(error)) from None
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
        f"{folder}: holds none of {', '.join(_FOLDER_MARKS)}, so it is no model that Diptych reads"
    )


def _load_file(path: Path) -> CLIP:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    size = path.stat().st_size
    if start.startswith(_ZIP):
        return load_archive(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        _refuse_without_its_folder(path)
        return load_safetensors(path)
    if start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path}: a pickle from before PyTorch 1.6, which cannot be read without running it. If you trust its "
            "source, convert it: torch.save(torch.load(OLD, weights_only=True), NEW)"
        )
    raise CheckpointError(
        f"{path}: {size} bytes that start with {start!r}; expected a zip archive of PyTorch, a safetensors file, or a "
        "folder. A download that ended early, or a web page saved in its place, looks like this: fetch it again"
    )


def _refuse_without_its_folder(path: Path) -> None:
    """The folder of such a file knows the activation and the preprocessing; the file alone does not."""
    marks = [name for name in _FOLDER_MARKS if (path.parent / name).is_file()]
    if marks:
        raise CheckpointError(
            f"{path}: lies beside {marks[0]}, which says what it is; load the folder: {path.parent}"
        )
