"""Read the folders of Hugging Face transformers for CLIP: `config.json` with `model_type` "clip", weights, processor.

transformers has only vision transformers, keeps queries, keys and values apart, and transposes the two projections.
"""

from pathlib import Path
from typing import Any

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Activation, Architecture
from diptych.models.image_model import ImageModel
from diptych.models.transformer import EPSILON
from diptych.weights.assembly import Piece, assemble, heads_unless_default
from diptych.weights.folders import Json, read_json
from diptych.weights.foreign.openai import archived_state
from diptych.weights.tensor_files import JoinedFiles, SafetensorsFile, TensorFile

CONFIG = "config.json"
KIND = "clip"  # its model_type
PROCESSOR = "preprocessor_config.json"
# transformers 5 keeps the image processor's settings in a table of this file.
_JOINT_PROCESSOR = "processor_config.json"
WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = "pytorch_model.bin"
PROCESSORS = (PROCESSOR, _JOINT_PROCESSOR)
WEIGHT_FILES = (WEIGHTS, _INDEX, _PICKLED)

BICUBIC, BILINEAR = 3, 2  # Pillow's numbers
ACTIVATIONS: dict[Activation, str] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
}
# Old configurations say 2, and mean the token with the largest id.
_LEGACY_END_ID = 2

_TOP_LEVEL = {
    "logit_scale": Piece(("logit_scale",)),
    "text.text_projection": Piece(("text_projection.weight",), transposed=True),
    "text.token_embedding.weight": Piece(("text_model.embeddings.token_embedding.weight",)),
    "text.positional_embedding": Piece(("text_model.embeddings.position_embedding.weight",)),
    "text.ln_final.weight": Piece(("text_model.final_layer_norm.weight",)),
    "text.ln_final.bias": Piece(("text_model.final_layer_norm.bias",)),
    "visual.class_embedding": Piece(("vision_model.embeddings.class_embedding",)),
    "visual.conv1.weight": Piece(("vision_model.embeddings.patch_embedding.weight",)),
    "visual.positional_embedding": Piece(("vision_model.embeddings.position_embedding.weight",)),
    "visual.ln_pre.weight": Piece(("vision_model.pre_layrnorm.weight",)),  # the library's spelling
    "visual.ln_pre.bias": Piece(("vision_model.pre_layrnorm.bias",)),
    "visual.ln_post.weight": Piece(("vision_model.post_layernorm.weight",)),
    "visual.ln_post.bias": Piece(("vision_model.post_layernorm.bias",)),
    "visual.proj": Piece(("visual_projection.weight",), transposed=True),
}
_TOWERS = {"text": "text_model", "visual": "vision_model"}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def transformers_layout(name: str) -> Piece:
    """Return the name of a tensor in transformers."""
    if name in _TOP_LEVEL:
        return _TOP_LEVEL[name]
    tower, _, _, number, rest = name.split(".", 4)
    block = f"{_TOWERS[tower]}.encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        kind = rest.removeprefix("attn.in_proj_")
        return Piece(tuple(f"{block}.self_attn.{part}_proj.{kind}" for part in "qkv"))
    module, _, kind = rest.rpartition(".")
    return Piece((f"{block}.{_IN_BLOCK[module]}.{kind}",))


def holds_weights(folder: Path, name: str) -> bool:
    """Return whether the file `name` has the weights that transformers takes from `folder`, or a part of them."""
    if (folder / WEIGHTS).is_file():
        return name == WEIGHTS
    if (folder / _INDEX).is_file():
        homes = read_json(folder / _INDEX).get("weight_map")
        return isinstance(homes, dict) and name in homes.values()
    return name == _PICKLED


def read_transformers_folder(
    folder: Path, weights: TensorFile | None = None
) -> tuple[ImageModel, Preprocess]:
    """Read the model (float32, CPU, evaluation mode) and the preprocessing of a transformers folder.

    weights: another file that the configuration describes, in place of the folder's own.

    Raises `CheckpointError`, with the key of the configuration, for a model that Diptych does not build.
    """
    architecture, preprocess = describe(folder)
    source = _weights(folder) if weights is None else weights
    # Older versions stored the indices 0, 1, 2, ... of the positions.
    ignored = [name for name in source.entries if name.endswith(".position_ids")]
    return assemble(architecture, source, transformers_layout, str(folder), ignored), preprocess


def describe(folder: Path) -> tuple[Architecture, Preprocess]:
    """Read the configuration of a transformers folder.

    Raises `CheckpointError`, with its key, for a model that Diptych does not build.
    """
    path = folder / CONFIG
    contents = read_json(path)
    if contents.get("model_type") != KIND:
        raise CheckpointError(
            f"{path}: model_type is {contents.get('model_type')!r}; expected {KIND!r}, the only one that Diptych reads"
        )
    try:
        architecture = _architecture(contents, str(path))
        return architecture, _preprocess(folder, architecture.image.resolution)
    except SettingsError as error:
        raise CheckpointError(str(error)) from None


def parts_of(weights: Path) -> list[str]:
    """Return the names of the files of tensors that an index lists; none for a file of tensors."""
    return [] if weights.name != _INDEX else sorted(set(_homes(weights).values()))


def _homes(index: Path) -> dict[str, str]:
    """Return the file of each tensor, by the index of a model in several files."""
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in homes.values()
    ):
        raise CheckpointError(
            f"{index}: has no weight_map from tensors to files beside it; copy the folder again"
        )
    return homes


def _weights(folder: Path) -> TensorFile:
    if (folder / WEIGHTS).is_file():
        return SafetensorsFile(folder / WEIGHTS)
    if (folder / _INDEX).is_file():
        homes = _homes(folder / _INDEX)
        files = {file: SafetensorsFile(folder / file) for file in sorted(set(homes.values()))}
        lost = [name for name, file in homes.items() if name not in files[file].entries]
        if lost:
            raise CheckpointError(
                f"{folder / homes[lost[0]]}: lacks the tensor {lost[0]!r}, which {_INDEX} lists; copy the folder again"
            )
        return JoinedFiles({name: files[file] for name, file in homes.items()})
    if (folder / _PICKLED).is_file():
        return archived_state(folder / _PICKLED)
    raise CheckpointError(f"{folder}: holds no weights; expected {WEIGHTS}, {_INDEX} or {_PICKLED}")


def _architecture(contents: Json, where: str) -> Architecture:
    """Return the architecture of a configuration, which leaves out the values of ViT-B/32."""
    text, vision = _tower(contents, "text", where), _tower(contents, "vision", where)
    activation = _activation(vision, "vision", where)
    of_texts = _activation(text, "text", where)
    width, text_width = vision.get("hidden_size", 768), text.get("hidden_size", 512)
    vocab_size = text.get("vocab_size", 49_408)
    if text.get("eos_token_id", _LEGACY_END_ID) not in (_LEGACY_END_ID, vocab_size - 1):
        raise CheckpointError(
            f"{where}: text_config.eos_token_id is {text['eos_token_id']}; expected the last of the vocabulary, "
            f"{vocab_size - 1}, where CLIP's text tower looks for the feature"
        )
    values = {
        "embed_dim": contents.get("projection_dim", 512),
        "image": {
            "resolution": vision.get("image_size", 224),
            "patch": vision.get("patch_size", 32),
            "width": width,
            "layers": vision.get("num_hidden_layers", 12),
            "heads": heads_unless_default(vision.get("num_attention_heads", 12), width),
            **_blocks(vision, width),
        },
        "text": {
            "width": text_width,
            "layers": text.get("num_hidden_layers", 12),
            "heads": heads_unless_default(text.get("num_attention_heads", 8), text_width),
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": vocab_size,
            **_blocks(text, text_width),
            "activation": None if of_texts == activation else of_texts,
        },
        "activation": activation,
    }
    return config.build(Architecture, values, where)


def _tower(contents: Json, name: str, where: str) -> Json:
    # Old files keep the values under the second name, which then has precedence.
    tower = {**(contents.get(f"{name}_config") or {}), **(contents.get(f"{name}_config_dict") or {})}
    if tower.get("num_channels", 3) != 3:
        raise CheckpointError(
            f"{where}: {name}_config.num_channels is {tower['num_channels']!r}; Diptych supports only 3"
        )
    return tower


def _blocks(tower: Json, width: Any) -> Json:
    """Return what the blocks of a tower have otherwise than OpenAI's."""
    inner, epsilon = tower.get("intermediate_size"), tower.get("layer_norm_eps", EPSILON)
    return {
        "mlp_width": None if inner == 4 * width else inner,
        "epsilon": None if epsilon == EPSILON else epsilon,
    }


def _activation(tower: Json, name: str, where: str) -> Activation:
    theirs = tower.get("hidden_act", "quick_gelu")
    ours = next((ours for ours, known in ACTIVATIONS.items() if known == theirs), None)
    if ours is None:
        raise CheckpointError(
            f"{where}: {name}_config.hidden_act is {theirs!r}, which Diptych does not support; "
            f"expected {' or '.join(map(repr, ACTIVATIONS.values()))}"
        )
    return ours


def _preprocess(folder: Path, resolution: int) -> Preprocess:
    path, table = folder / PROCESSOR, None
    if path.is_file():
        table = read_json(path)
    elif (folder / _JOINT_PROCESSOR).is_file():
        path = folder / _JOINT_PROCESSOR
        table = read_json(path).get("image_processor")
    if not isinstance(table, dict):
        raise CheckpointError(
            f"{folder}: has no {PROCESSOR}, so the preprocessing of the model is unknown; save it there "
            "with the processor's save_pretrained"
        )
    size, crop = table.get("size", {"shortest_edge": resolution}), table.get("crop_size", resolution)
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    squash = isinstance(size, dict) and size.get("height") == size.get("width") == resolution
    cropped = table.get("do_center_crop", True)
    sides = set(crop.values()) if isinstance(crop, dict) else {crop}
    if (cropped and sides != {resolution}) or not (squash or (shortest == resolution and cropped)):
        raise CheckpointError(
            f"{path}: size {size} and crop_size {crop} (do_center_crop: {cropped}) do not give the "
            f"{resolution} x {resolution} pixels of the model by one resize and one crop"
        )
    _refuse_steps(table, path)
    values: Json = {
        "resolution": resolution,
        "interpolation": "bilinear" if table.get("resample", BICUBIC) == BILINEAR else "bicubic",
        "resize": "squash" if squash else "shortest",
    }
    values |= {
        ours: table[theirs]
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if theirs in table
    }
    return config.build(Preprocess, values, str(path))


def _refuse_steps(table: Json, path: Path) -> None:
    expected: dict[str, tuple[Any, ...]] = {
        "do_resize": (True,),
        "do_rescale": (True,),
        "do_normalize": (True,),
        "resample": (BICUBIC, BILINEAR),
    }
    for key, values in expected.items():
        if table.get(key, values[0]) not in values:
            raise CheckpointError(
                f"{path}: {key} is {table[key]!r}; expected {' or '.join(map(str, values))}"
            )
    if abs(table.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{path}: rescale_factor is {table['rescale_factor']!r}; expected 1/255")
