"""Write a CLIP as a folder of Hugging Face transformers: model, image processor and tokenizer."""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.exporting.plain_towers import plain_towers
from diptych.exporting.tokenizer_files import write_tokenizer
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.image_model import ImageModel
from diptych.models.transformer import EPSILON
from diptych.tokenizer.bpe import Tokenizer
from diptych.weights.checkpoint import Precision, in_precision
from diptych.weights.folders import Json, write_json, write_tensors
from diptych.weights.foreign import transformers
from diptych.weights.foreign.transformers import ACTIVATIONS, BICUBIC, BILINEAR, transformers_layout


def write_transformers(
    folder: Path, model: ImageModel, preprocess: Preprocess, precision: Precision = "float32"
) -> None:
    """Write `model` with its preprocessing and tokenizer into an empty folder; `from_pretrained` loads all three.

    Raises:
        CheckpointError: transformers has no such model, or no such preprocessing.
    """
    settings = _settings(model.architecture) | {"dtype": precision}
    processor = image_processor(preprocess)
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors.update(transformers_layout(name).split(in_precision(tensor, precision)))
    write_tensors(folder / transformers.WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / transformers.CONFIG, settings)
    write_json(folder / transformers.PROCESSOR, processor)
    write_tokenizer(folder, model.context_length)


def image_processor(preprocess: Preprocess) -> Json:
    """Return `preprocessor_config.json` of transformers' image processor.

    Raises:
        CheckpointError: it cannot prepare images so.
    """
    n = preprocess.resolution
    if preprocess.resize == "longest":
        raise CheckpointError(
            "transformers' CLIP processor cannot pad (resize = 'longest'); export the model as open_clip instead"
        )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": n, "width": n} if preprocess.resize == "squash" else {"shortest_edge": n},
        "resample": BILINEAR if preprocess.interpolation == "bilinear" else BICUBIC,
        "do_center_crop": preprocess.resize == "shortest",
        "crop_size": {"height": n, "width": n},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _settings(architecture: Architecture) -> Json:
    """Return `config.json` of an architecture that transformers has."""
    if not isinstance(architecture.image, VisionTransformer):
        raise CheckpointError("transformers has no CLIP with a ResNet; export the model as open_clip instead")
    _, text = plain_towers(architecture, "transformers")
    _refuse_switches(architecture.image, text)
    if text.vocab_size != Tokenizer.vocab_size:
        raise CheckpointError(
            f"the model has {text.vocab_size} tokens; a transformers folder is written with CLIP's tokenizer, "
            f"which has {Tokenizer.vocab_size}; export the model as open_clip instead"
        )
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": architecture.embed_dim,
        "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": Tokenizer.start_token,
            "eos_token_id": Tokenizer.end_token,
            "pad_token_id": Tokenizer.end_token,
            **_tower(text, architecture),
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": architecture.image.resolution,
            "patch_size": architecture.image.patch,
            **_tower(architecture.image, architecture),
        },
    }


def _refuse_switches(image: VisionTransformer, text: TextTransformer) -> None:
    """Raise `CheckpointError` for what open_clip's towers can have and the CLIP of transformers cannot."""
    for tower, names in (
        (image, ("first_norm", "pool", "norm_after_pool", "positions", "layer_scale")),
        (text, ("causal", "pool", "end_id", "projection", "layer_scale")),
    ):
        for name in names:
            if getattr(tower, name) is not None:
                raise CheckpointError(
                    f"the CLIP of transformers has no {name} = {getattr(tower, name)!r} of a {type(tower).__name__}; "
                    "export the model as open_clip instead"
                )


def _tower(tower: TextTransformer | VisionTransformer, architecture: Architecture) -> Json:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width or 4 * tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads or tower.width // 64,
        "projection_dim": architecture.embed_dim,
        "hidden_act": ACTIVATIONS[tower.activation or architecture.activation],
        "layer_norm_eps": tower.epsilon or EPSILON,
    }
