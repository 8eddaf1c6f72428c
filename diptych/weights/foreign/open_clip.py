"""Read open_clip's folders: `open_clip_config.json` beside the weights."""

from pathlib import Path

from diptych import config
from diptych.data.images.transforms import CLIP_MEAN, CLIP_STD, Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.weights.assembly import assemble
from diptych.weights.folders import Json, read_json
from diptych.weights.foreign.open_clip_config import architecture_of, table
from diptych.weights.foreign.openai import archived_state, derived_names, openai_layout
from diptych.weights.tensor_files import SafetensorsFile, TensorFile

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# In the order in which open_clip looks for them. A repository may have transformers' model.safetensors as well.
WEIGHT_FILES = (WEIGHTS, "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")


def holds_weights(folder: Path, name: str) -> bool:
    """Return whether the file `name` has the weights that open_clip takes from `folder`."""
    return name == next((known for known in WEIGHT_FILES if (folder / known).is_file()), None)


def read_open_clip_folder(folder: Path, weights: TensorFile | None = None) -> tuple[ImageModel, Preprocess]:
    """Read the model (float32, CPU, evaluation mode) and the preprocessing of an open_clip folder.

    weights: another file that the configuration describes, in place of the folder's own.

    Raises `CheckpointError`, with the key of the configuration, for a model that Diptych does not build.
    """
    architecture, preprocess = describe(folder)
    source = _weights(folder) if weights is None else weights
    prefix = "text." if "text.token_embedding.weight" in source.entries else ""
    model = assemble(
        architecture, source, openai_layout(prefix), str(folder), ignored=derived_names(source.entries)
    )
    return model, preprocess


def describe(folder: Path) -> tuple[Architecture, Preprocess]:
    """Read the configuration of an open_clip folder.

    Raises `CheckpointError`, with its key, for a model that Diptych does not build.
    """
    path = folder / CONFIG
    contents = read_json(path)
    try:
        architecture = architecture_of(table(contents, "model_cfg", str(path)), str(path))
        return architecture, _preprocess(contents.get("preprocess_cfg") or {}, architecture, str(path))
    except SettingsError as error:
        raise CheckpointError(str(error)) from None


def _weights(folder: Path) -> TensorFile:
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: holds no weights; expected one of {', '.join(WEIGHT_FILES)}")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else archived_state(path)


def _preprocess(asked: Json, architecture: Architecture, where: str) -> Preprocess:
    mode = asked.get("resize_mode") or "shortest"
    fill = asked.get("fill_color") or 0
    values: Json = {
        "resolution": architecture.image.resolution,
        "mean": asked.get("mean") or CLIP_MEAN,
        "std": asked.get("std") or CLIP_STD,
        # "random" is for training; in use, open_clip replaces it by bicubic.
        "interpolation": "bilinear" if asked.get("interpolation") == "bilinear" else "bicubic",
        "resize": mode,
    }
    if mode == "longest":
        values["background"] = fill if isinstance(fill, list) else (fill,) * 3
    return config.build(Preprocess, values, f"{where} [preprocess_cfg]")
