"""Write a CLIP as a folder of open_clip, which loads it as `local-dir:FOLDER`."""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.exporting.plain_towers import plain_towers
from diptych.models.architectures import Architecture, VisionTransformer
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
        },
    }
