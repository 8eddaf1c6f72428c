"""Read and write open_clip's folders: `open_clip_config.json` beside the weights.

The configuration has many switches. A switch that changes the result and is not built here is refused by its name. An
unknown switch is refused too, so that a model is never loaded as an approximation of itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych import config
from diptych.data.images.transforms import CLIP_MEAN, CLIP_STD, Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.weights.assembly import assemble, heads_unless_default
from diptych.weights.folders import Json, read_json
from diptych.weights.foreign.openai import archived_state, derived_names, openai_layout
from diptych.weights.tensor_files import SafetensorsFile, TensorFile

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

# In the order in which open_clip looks for them. A repository may have transformers' model.safetensors as well.
WEIGHT_FILES = (WEIGHTS, "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")

# The switches that must have CLIP's values: key, and these values.
_TOWER: dict[str, tuple[Any, ...]] = {
    "mlp_ratio": (4, None),
    "ls_init_value": (None,),
    "final_ln_after_pool": (False,),
    "output_tokens": (False,),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "block_type": (None, "default"),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
}
_VISION = {
    **_TOWER,
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "timm_model_name": (None,),
}
_TEXT = {
    **_TOWER,
    "hf_model_name": (None,),
    "hf_tokenizer_name": (None,),
    "tokenizer_mode": (None,),
    "tokenizer_kwargs": (None, {}),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
    "pad_id": (0,),
    "pool_type": ("argmax",),
    "proj_bias": (False,),
    "proj_type": ("linear",),
}
_MODEL = {"init_logit_bias": (None,), "multimodal_cfg": (None,)}

# Keys that are used below, or that have no effect on a trained CLIP.
_KNOWN = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"},
    "vision_cfg": {
        *("layers", "width", "head_width", "patch_size", "image_size", "patch_dropout"),
        *("attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj"),
        *("timm_proj_bias", "timm_drop", "timm_drop_path"),
    },
    "text_cfg": {
        *("context_length", "vocab_size", "width", "heads", "layers", "eos_id"),
        *("hf_model_pretrained", "hf_proj_type", "hf_pooler_type"),
    },
}


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
        architecture = _architecture(_table(contents, "model_cfg", str(path)), str(path))
        return architecture, _preprocess(contents.get("preprocess_cfg") or {}, architecture, str(path))
    except SettingsError as error:
        raise CheckpointError(str(error)) from None


def _weights(folder: Path) -> TensorFile:
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{folder}: holds no weights; expected one of {', '.join(WEIGHT_FILES)}")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else archived_state(path)


def _architecture(model: Json, where: str) -> Architecture:
    vision, text = _table(model, "vision_cfg", where), _table(model, "text_cfg", where)
    for name, table, required in (
        ("model_cfg", model, _MODEL),
        ("vision_cfg", vision, _VISION),
        ("text_cfg", text, _TEXT),
    ):
        _refuse_others(table, name, required, where)
    width, text_width = vision.get("width", 768), text.get("width", 512)
    layers, head_width = vision.get("layers", 12), vision.get("head_width", 64)
    image: Json = {
        "resolution": _square(vision.get("image_size", 224), where),
        "layers": layers,
        "width": width,
    }
    if isinstance(layers, list):
        image["heads"] = heads_unless_default(_heads(width, 32, head_width, where), 32 * width)
    else:
        image["heads"] = heads_unless_default(_heads(width, 1, head_width, where), width)
        image["patch"] = vision.get("patch_size", 16)
    values = {
        "embed_dim": model.get("embed_dim"),
        "image": image,
        "text": {
            "width": text_width,
            "heads": heads_unless_default(text.get("heads", 8), text_width),
            "layers": text.get("layers", 12),
            "context_length": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49_408),
        },
        "activation": "quick_gelu" if model.get("quick_gelu", False) else "gelu",
    }
    return config.build(Architecture, values, where)


def _preprocess(table: Json, architecture: Architecture, where: str) -> Preprocess:
    mode = table.get("resize_mode") or "shortest"
    fill = table.get("fill_color") or 0
    values: Json = {
        "resolution": architecture.image.resolution,
        "mean": table.get("mean") or CLIP_MEAN,
        "std": table.get("std") or CLIP_STD,
        # "random" is for training; in use, open_clip replaces it by bicubic.
        "interpolation": "bilinear" if table.get("interpolation") == "bilinear" else "bicubic",
        "resize": mode,
    }
    if mode == "longest":
        values["background"] = fill if isinstance(fill, list) else (fill,) * 3
    return config.build(Preprocess, values, f"{where} [preprocess_cfg]")


def _refuse_others(table: Json, name: str, required: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for key, value in table.items():
        if key in required:
            if value not in required[key]:
                raise CheckpointError(
                    f"{where}: {name}.{key} is {value!r}, which Diptych does not support; "
                    f"expected {' or '.join(map(repr, required[key]))}"
                )
        elif key not in _KNOWN[name]:
            raise CheckpointError(
                f"{where}: {name}.{key} is unknown to Diptych, and may change the model; it was refused"
            )


def _table(values: Json, name: str, where: str) -> Json:
    table = values.get(name)
    if not isinstance(table, dict):
        raise CheckpointError(f"{where}: has no table {name!r}; expected open_clip's configuration of a CLIP")
    return table


def _square(size: Any, where: str) -> Any:
    if not isinstance(size, list):
        return size
    if len(set(map(str, size))) != 1:
        raise CheckpointError(
            f"{where}: vision_cfg.image_size is {size}; Diptych supports only square images"
        )
    return size[0]


def _heads(width: Any, factor: int, head_width: Any, where: str) -> int:
    if isinstance(width, int) and isinstance(head_width, int) and head_width > 0:
        heads, rest = divmod(factor * width, head_width)
        if rest == 0:
            return heads
    raise CheckpointError(
        f"{where}: vision_cfg.width {width!r} is not a multiple of vision_cfg.head_width {head_width!r}, so the number "
        "of heads is not a whole number"
    )
