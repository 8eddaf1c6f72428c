"""Read files of weights alone, and find the facts about their model.

Shapes give the sizes, but not the activation, the heads, or the preprocessing. These come, in this order, from:

1. the model that the caller gives (`like`),
2. the description in a state dict of Diptych (`_metadata`, which `torch.save` keeps),
3. the configuration beside the file,
4. OpenAI's models, for a file with the SHA-256 of one of theirs, and for a TorchScript archive, their form,
5. the activation that the caller gives. The rest is assumed, with a warning.

Any other file is refused, because the wrong activation silently gives wrong features.
"""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from diptych import config
from diptych.atomic import sha256_of
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Activation, Architecture
from diptych.models.image_model import ImageModel
from diptych.weights import checkpoint
from diptych.weights.assembly import assemble
from diptych.weights.folders import read_json
from diptych.weights.foreign import open_clip, published, transformers
from diptych.weights.foreign.archive import ArchivedTensors
from diptych.weights.foreign.openai import derived_names, infer_architecture, openai_layout
from diptych.weights.tensor_files import TensorFile

# Channels per head of open_clip's vision transformers that do not have 64, by width: ViT-H/14, ViT-g/14, ViT-bigG/14.
_OTHER_HEADS = {1280: 80, 1408: 88, 1664: 104}


class AssumedWarning(UserWarning):
    """A fact about a model was assumed, because its file does not contain it."""


@dataclass(frozen=True)
class Facts:
    """The facts about a model that a file of weights may lack."""

    architecture: Architecture
    preprocess: Preprocess


def read_plain_file(
    path: Path, source: TensorFile, activation: Activation | None, like: Facts | None
) -> tuple[ImageModel, Preprocess]:
    """Return the model (float32, CPU, evaluation mode) of the tensors in `source`, and its preprocessing.

    activation: the one that the weights were trained with, for a file without any other source of it.
    like: the facts of another model of the same architecture.

    Raises `CheckpointError` if the activation is unknown, or if the tensors do not fit the model.
    """
    if like is not None:
        return _assemble(like.architecture, source, path), like.preprocess
    if isinstance(source, ArchivedTensors) and source.description is not None:
        return _from_description(path, source, source.description)
    mark = configuration_beside(path)
    if mark is not None:
        return _from_configuration(path, source, mark)
    return _as_openai(path, source, activation)


def configuration_beside(path: Path) -> str | None:
    """Return the name of the configuration file that describes the weights beside `path`; None without one."""
    folder = path.parent
    for name in (checkpoint.MANIFEST, open_clip.CONFIG):
        if (folder / name).is_file():
            return name
    # Other programs have a config.json too.
    if (folder / transformers.CONFIG).is_file():
        try:
            kind = read_json(folder / transformers.CONFIG).get("model_type")
        except CheckpointError:
            return None
        return transformers.CONFIG if kind == transformers.KIND else None
    return None


def _from_description(path: Path, source: TensorFile, description: str) -> tuple[ImageModel, Preprocess]:
    """Build the model of a state dict that Diptych made."""
    where = f"{path}: _metadata"
    try:
        values = json.loads(description)
        architecture = config.build(Architecture, values["architecture"], f"{where} [architecture]")
        stated = values.get("preprocessing")
        preprocess = (
            Preprocess(architecture.image.resolution)
            if stated is None
            else config.build(Preprocess, stated, f"{where} [preprocessing]")
        )
    except SettingsError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{where} does not describe a model ({error!r}); the file is damaged: save it again"
        ) from None
    model = _assemble(architecture, source, path)
    if stated is None:
        _warn(f"{path}: does not describe the preprocessing; assumed: {_summary(preprocess)}")
    return model, preprocess


def _from_configuration(path: Path, source: TensorFile, mark: str) -> tuple[ImageModel, Preprocess]:
    """Build the model of weights with a configuration beside them."""
    folder = path.parent
    _warn(
        f"{path}: was read as the model of {folder / mark}, because it lies beside that file; to "
        f"read the folder's own weights, load {folder}"
    )
    if mark == checkpoint.MANIFEST:
        architecture, manifest = checkpoint.describe(folder)
        return _assemble(architecture, source, path), checkpoint.preprocess_of(folder, manifest)
    if mark == open_clip.CONFIG:
        return open_clip.read_open_clip_folder(folder, source)
    return transformers.read_transformers_folder(folder, source)


def _as_openai(
    path: Path, source: TensorFile, activation: Activation | None
) -> tuple[ImageModel, Preprocess]:
    """Build the model of a file in OpenAI's layout, which does not contain the activation."""
    where = str(path)
    prefix = _text_prefix(source)
    inferred = infer_architecture(source.entries, prefix, where)
    scripted = isinstance(source, ArchivedTensors) and source.is_torchscript
    published = not (scripted and activation is None) and _is_published(path)
    if activation is None and not scripted and not published:
        raise CheckpointError(
            f"{path}: does not say which activation its weights were trained with, and the wrong one gives wrong "
            'features; expected activation="gelu" (open_clip\'s models, unless their name ends in -quickgelu) or '
            'activation="quick_gelu" (OpenAI\'s, and those fine-tuned from them): diptych.load(FILE, activation=...), '
            "--activation on the command line, FILE?activation=gelu in a recipe; or put the model's configuration "
            f"({open_clip.CONFIG}, or {transformers.CONFIG} with {transformers.PROCESSOR}) beside the file"
        )
    architecture = inferred if activation is None or published else replace(inferred, activation=activation)
    preprocess = Preprocess(architecture.image.resolution)
    assumed = activation is not None and not published
    if assumed:
        _refuse_other_heads(architecture, path)
    model = assemble(architecture, source, openai_layout(prefix), where, derived_names(source.entries))
    if assumed:
        _warn(
            f"{path}: holds nothing but weights; assumed: {_summary(preprocess)}, and 64 channels per head. If "
            "the model was trained otherwise, put its configuration beside the file"
        )
    return model, preprocess


def _assemble(architecture: Architecture, source: TensorFile, path: Path) -> ImageModel:
    """Build the model, with the text tower under a prefix, as in Diptych, or without one, as in OpenAI's layout."""
    layout = openai_layout(_text_prefix(source))
    return assemble(architecture, source, layout, str(path), derived_names(source.entries))


def _text_prefix(source: TensorFile) -> str:
    return "text." if any(name.startswith("text.") for name in source.entries) else ""


def _is_published(path: Path) -> bool:
    return sha256_of(path) in {file.sha256 for file in published.FILES.values()}


def _refuse_other_heads(architecture: Architecture, path: Path) -> None:
    image = architecture.image
    if image.patches and image.width in _OTHER_HEADS:
        raise CheckpointError(
            f"{path}: an image tower of width {image.width} has {_OTHER_HEADS[image.width]} channels per head in "
            f"open_clip and 64 elsewhere, which the shapes do not show; put {open_clip.CONFIG} beside the file"
        )


def _summary(preprocess: Preprocess) -> str:
    n = preprocess.resolution
    return (
        f"OpenAI's preprocessing (the shorter side to {n} pixels, bicubic, the central {n} x {n}, OpenAI's mean and "
        "standard deviation)"
    )


def _warn(message: str) -> None:
    warnings.warn(message, AssumedWarning, stacklevel=2)
