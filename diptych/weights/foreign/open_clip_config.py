"""Read the table `model_cfg` of open_clip's configurations.

It has many switches. A switch that changes the result and is not built here is refused by its name. An unknown switch
is refused too, so that a model is never loaded as an approximation of itself.
"""

from collections.abc import Mapping
from typing import Any

from diptych import config
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture
from diptych.models.transformer import EPSILON
from diptych.weights.assembly import heads_unless_default
from diptych.weights.folders import Json

# The switches that must have one of these values.
_TOWER: dict[str, tuple[Any, ...]] = {
    "output_tokens": (False,),
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
    "pos_embed_type": ("learnable", "sin_cos_2d"),
    "pool_type": ("tok", "avg"),
    "final_ln_after_pool": (False, True),
    "timm_model_name": (None,),
}
_RESNET: dict[str, tuple[Any, ...]] = {
    "mlp_ratio": (4, None),
    "ls_init_value": (None,),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "final_ln_after_pool": (False,),
}
_TEXT = {
    **_TOWER,
    "hf_model_name": (None,),
    "hf_tokenizer_name": (None,),
    "tokenizer_mode": (None,),
    "tokenizer_kwargs": (None, {}),
    "embed_cls": (False,),
    "final_ln_after_pool": (False,),
    "pad_id": (0,),
    "pool_type": ("argmax", "first", "last", "eos"),
    "proj_type": ("linear", "none"),
}
_WHY = {
    "hf_tokenizer_name": " (it reads texts with that tokenizer, and Diptych has CLIP's alone)",
}
_MODEL = {"init_logit_bias": (None,), "multimodal_cfg": (None,)}

_APPROXIMATE: tuple[Json, ...] = ({"approximate": "tanh"}, {"approximate": "none"})  # of a GELU

# Keys that are used below, or that have no effect on a trained CLIP.
_KNOWN_OF_TOWERS = {"mlp_ratio", "ls_init_value", "act_kwargs", "norm_kwargs"}
_KNOWN = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"},
    "vision_cfg": {
        *_KNOWN_OF_TOWERS,
        *("layers", "width", "head_width", "patch_size", "image_size", "patch_dropout", "no_ln_pre"),
        *("attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj"),
        *("timm_proj_bias", "timm_drop", "timm_drop_path"),
    },
    "text_cfg": {
        *_KNOWN_OF_TOWERS,
        *(
            "context_length",
            "vocab_size",
            "width",
            "heads",
            "layers",
            "eos_id",
            "no_causal_mask",
            "proj_bias",
        ),
        *("hf_model_pretrained", "hf_proj_type", "hf_pooler_type"),
    },
}


def architecture_of(model: Json, where: str) -> Architecture:
    """Return the architecture of the table `model_cfg`.

    Raises `CheckpointError`, with the key of the configuration, for a model that Diptych does not build, and
    `SettingsError` for a value of another type.
    """
    vision, text = table(model, "vision_cfg", where), table(model, "text_cfg", where)
    convolutional = isinstance(vision.get("layers"), list)
    for name, values, required in (
        ("model_cfg", model, _MODEL),
        ("vision_cfg", vision, _VISION | _RESNET if convolutional else _VISION),
        ("text_cfg", text, _TEXT),
    ):
        _refuse_others(values, name, required, where)
    quick = bool(model.get("quick_gelu", False))
    values = {
        "embed_dim": model.get("embed_dim"),
        "image": _resnet(vision, where) if convolutional else _vision_transformer(vision, quick, where),
        "text": _text_transformer(text, quick, where),
        "activation": "quick_gelu" if quick else "gelu",
    }
    return config.build(Architecture, values, where)


def table(values: Json, name: str, where: str) -> Json:
    """Return the table `name` of a configuration. Raises `CheckpointError` where it has none."""
    found = values.get(name)
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: has no table {name!r}; expected open_clip's configuration of a CLIP")
    return found


def _resnet(vision: Json, where: str) -> Json:
    width = vision.get("width", 768)
    return {
        "resolution": _square(vision.get("image_size", 224), where),
        "layers": vision["layers"],
        "width": width,
        "heads": heads_unless_default(_heads(width, 32, vision.get("head_width", 64), where), 32 * width),
    }


def _vision_transformer(vision: Json, quick: bool, where: str) -> Json:
    width = vision.get("width", 768)
    pools_mean = vision.get("pool_type", "tok") == "avg"
    return {
        "resolution": _square(vision.get("image_size", 224), where),
        "layers": vision.get("layers", 12),
        "width": width,
        "heads": heads_unless_default(_heads(width, 1, vision.get("head_width", 64), where), width),
        "patch": vision.get("patch_size", 16),
        **_blocks(vision, width, quick, f"{where}: vision_cfg"),
        "first_norm": False if vision.get("no_ln_pre", False) else None,
        "pool": "mean" if pools_mean else None,
        # Of the class token alone it is the same, before and after.
        "norm_after_pool": True if pools_mean and vision.get("final_ln_after_pool", False) else None,
        "positions": "sinusoidal" if vision.get("pos_embed_type") == "sin_cos_2d" else None,
    }


def _text_transformer(text: Json, quick: bool, where: str) -> Json:
    width, pool = text.get("width", 512), text.get("pool_type", "argmax")
    biased = "biased" if text.get("proj_bias", False) else None
    return {
        "width": width,
        "heads": heads_unless_default(text.get("heads", 8), width),
        "layers": text.get("layers", 12),
        "context_length": text.get("context_length", 77),
        "vocab_size": text.get("vocab_size", 49_408),
        **_blocks(text, width, quick, f"{where}: text_cfg"),
        "causal": False if text.get("no_causal_mask", False) else None,
        "pool": pool if pool in ("first", "last") else None,
        "end_id": text.get("eos_id", 2) if pool == "eos" else None,
        "projection": "none" if text.get("proj_type") == "none" else biased,
    }


def _blocks(tower: Json, width: Any, quick: bool, where: str) -> Json:
    """Return what the blocks of a tower have otherwise than OpenAI's."""
    ratio = 4 if tower.get("mlp_ratio") is None else tower["mlp_ratio"]
    norm, activation = tower.get("norm_kwargs") or {}, tower.get("act_kwargs") or {}
    for key, value, expected in (
        ("mlp_ratio", ratio, isinstance(ratio, int | float) and isinstance(width, int) and ratio > 0),
        ("norm_kwargs", norm, isinstance(norm, dict) and norm.keys() <= {"eps"}),
        ("act_kwargs", activation, activation in ({}, *(() if quick else _APPROXIMATE))),
    ):
        if not expected:
            raise CheckpointError(f"{where}.{key} is {value!r}, which Diptych does not support")
    inner, epsilon = int(width * ratio), norm.get("eps", EPSILON)
    return {
        "mlp_width": None if inner == 4 * width else inner,
        "epsilon": None if epsilon == EPSILON else epsilon,
        "activation": "gelu_tanh" if activation.get("approximate") == "tanh" else None,
        "layer_scale": tower.get("ls_init_value"),
    }


def _refuse_others(values: Json, name: str, required: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for key in required:
        if key in values and values[key] not in required[key]:
            raise CheckpointError(
                f"{where}: {name}.{key} is {values[key]!r}, which Diptych does not support{_WHY.get(key, '')}; "
                f"expected {' or '.join(map(repr, required[key]))}"
            )
    for key in values:
        if key not in required and key not in _KNOWN[name]:
            raise CheckpointError(
                f"{where}: {name}.{key} is unknown to Diptych, and may change the model; it was refused"
            )


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
