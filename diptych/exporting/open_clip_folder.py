"""Write a CLIP as a folder of open_clip, which loads it as `local-dir:FOLDER`."""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.exporting.plain_towers import plain_towers
from diptych.models.architectures import Activation, Architecture, TextTransformer, VisionTransformer
from diptych.models.image_model import ImageModel
from diptych.weights.checkpoint import Precision, in_precision
from diptych.weights.folders import Json, write_json, write_tensors
from diptych.weights.foreign import open_clip
from diptych.weights.foreign.openai import openai_layout


def write_open_clip(
    folder: Path, model: ImageModel, preprocess: Preprocess, precision: Precision = "float32"
) -> None:
    """Write the weights and the configuration of `model` into an empty folder.

    open_clip brings the tokenizer itself: the configuration gives the length of its rows.

    Raises:
        CheckpointError: open_clip has no such model.
    """
    settings = _settings(model.architecture)
    layout = openai_layout("")
    tensors = {
        layout(name).names[0]: in_precision(value, precision) for name, value in model.state_dict().items()
    }
    write_tensors(folder / open_clip.WEIGHTS, tensors, {"format": "pt"})
    write_json(
        folder / open_clip.CONFIG,
        {"model_cfg": settings, "preprocess_cfg": open_clip_preprocessing(preprocess)},
    )


def open_clip_preprocessing(preprocess: Preprocess) -> Json:
    """Return the table `preprocess_cfg` of open_clip's configuration."""
    return {
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize,
        "fill_color": preprocess.background[0] if preprocess.resize == "longest" else 0,
    }


def _settings(architecture: Architecture) -> Json:
    """Return `model_cfg` of an architecture that open_clip has."""
    image, text = plain_towers(architecture, "open_clip")
    vision: Json = {"image_size": image.resolution, "width": image.width}
    if isinstance(image, VisionTransformer):
        heads = image.heads or image.width // 64
        vision |= {"layers": image.layers, "patch_size": image.patch, "head_width": image.width // heads}
        vision |= _blocks(image, architecture.activation) | {
            key: value
            for key, value, wanted in (
                ("no_ln_pre", True, image.first_norm is False),
                ("pool_type", "avg", image.pool == "mean"),
                ("final_ln_after_pool", True, image.norm_after_pool),
                ("pos_embed_type", "sin_cos_2d", image.positions == "sinusoidal"),
            )
            if wanted
        }
    elif image.stem_stride != 4:
        raise CheckpointError(
            f"open_clip's ResNet has a stem of stride 4, the model one of {image.stem_stride}; export the model as "
            "torchscript instead"
        )
    else:
        heads = image.heads or image.width // 2
        vision |= {"layers": list(image.layers), "patch_size": None, "head_width": 32 * image.width // heads}
    return {
        "embed_dim": architecture.embed_dim,
        "quick_gelu": architecture.activation == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads or text.width // 64,
            "layers": text.layers,
            **_blocks(text, architecture.activation),
            **_readout(text),
        },
    }


def _readout(text: TextTransformer) -> Json:
    """Return the switches of what the feature of a text is, where a model has other ones than CLIP."""
    found: Json = {} if text.causal is not False else {"no_causal_mask": True}
    if text.pool is not None:
        found["pool_type"] = text.pool
    elif text.end_id is not None:
        found |= {"pool_type": "eos", "eos_id": text.end_id}
    if text.projection is not None:
        found |= {"proj_type": "none"} if text.projection == "none" else {"proj_bias": True}
    return found


def _blocks(tower: VisionTransformer | TextTransformer, activation: Activation) -> Json:
    """Return the switches of the blocks of a tower, where a model has other ones than CLIP."""
    found: Json = {}
    own = tower.activation or activation
    if "quick_gelu" in (own, activation) and own != activation:
        raise CheckpointError(
            f"open_clip has quick_gelu in both towers or in none, the model {activation} and {own}; export the model "
            "as torchscript instead"
        )
    if tower.mlp_width is not None:
        found["mlp_ratio"] = _ratio(tower.mlp_width, tower.width)
    if tower.epsilon is not None:
        found["norm_kwargs"] = {"eps": tower.epsilon}
    if own == "gelu_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    if tower.layer_scale is not None:
        found["ls_init_value"] = tower.layer_scale
    return found


def _ratio(inner: int, width: int) -> float:
    """Return a factor by which open_clip, which rounds down, comes from the width to the inner width."""
    ratio = inner / width
    return ratio if int(width * ratio) == inner else (inner + 0.5) / width
