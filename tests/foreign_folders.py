"""Write a model as the folders of open_clip and of transformers, for tests that these load it, and that we read it."""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.image_model import ImageModel
from diptych.tokenizer.vocabulary import read_merges
from diptych.weights.folders import Json, new_folder, write_json, write_tensors
from diptych.weights.foreign import open_clip, transformers
from diptych.weights.foreign.openai import openai_layout
from diptych.weights.foreign.transformers import transformers_layout

_BICUBIC, _BILINEAR = 3, 2  # Pillow's numbers
_START, _END = "<|startoftext|>", "<|endoftext|>"
_START_ID, _END_ID = 49_406, 49_407


def write_open_clip_folder(folder: Path, model: ImageModel, preprocess: Preprocess) -> None:
    """Write `model` so that open_clip loads it with `local-dir:FOLDER`."""
    settings = _open_clip_settings(model.architecture)
    resize = {"mean": list(preprocess.mean), "std": list(preprocess.std)}
    with new_folder(folder, open_clip.CONFIG) as work:
        layout = openai_layout("")
        tensors = {layout(name).names[0]: value for name, value in model.state_dict().items()}
        write_tensors(work / open_clip.WEIGHTS, tensors, {"format": "pt"})
        write_json(
            work / open_clip.CONFIG,
            {
                "model_cfg": settings,
                "preprocess_cfg": {
                    **resize,
                    "interpolation": preprocess.interpolation,
                    "resize_mode": preprocess.resize,
                    "fill_color": preprocess.background[0] if preprocess.resize == "longest" else 0,
                },
            },
        )


def write_transformers_folder(folder: Path, model: ImageModel, preprocess: Preprocess) -> None:
    """Write `model` with its preprocessing and tokenizer so that transformers' `from_pretrained` loads all three."""
    settings = _transformers_settings(model.architecture)
    processor = _processor(preprocess)
    with new_folder(folder, transformers.CONFIG) as work:
        tensors = {}
        for name, tensor in model.state_dict().items():
            tensors.update(transformers_layout(name).split(tensor))
        write_tensors(work / transformers.WEIGHTS, tensors, {"format": "pt"})
        write_json(work / transformers.CONFIG, settings)
        write_json(work / transformers.PROCESSOR, processor)
        _write_tokenizer(work, model.context_length)


def _open_clip_settings(architecture: Architecture) -> Json:
    """`model_cfg` of an architecture that open_clip has."""
    image, text = architecture.image, architecture.text_transformer
    if text is None or text.positions != "learned" or text.embedding_width is not None or text.known:
        raise CheckpointError(
            "open_clip has no such text tower; only a text transformer with learned positions and without an "
            "embedding width can be written as an open_clip folder"
        )
    vision: Json = {"image_size": image.resolution, "width": image.width}
    if isinstance(image, VisionTransformer):
        heads = image.heads or image.width // 64
        vision |= {"layers": image.layers, "patch_size": image.patch, "head_width": image.width // heads}
    elif image.stem_stride != 4:
        raise CheckpointError(
            f"open_clip's ResNet has a stem of stride 4, this one of {image.stem_stride}; it cannot be written "
            "as an open_clip folder"
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


def _transformers_settings(architecture: Architecture) -> Json:
    """`config.json` of an architecture that transformers has."""
    image, text = architecture.image, architecture.text_transformer
    if not isinstance(image, VisionTransformer):
        raise CheckpointError(
            "transformers has no CLIP with a ResNet; write this model as an open_clip folder instead"
        )
    if text is None or text.positions != "learned" or text.embedding_width is not None or text.known:
        raise CheckpointError(
            "transformers has no such text tower; only a text transformer with learned positions and without an "
            "embedding width can be written as a transformers folder"
        )
    if text.vocab_size != _END_ID + 1:
        raise CheckpointError(
            f"the model has {text.vocab_size} tokens; a transformers folder is written with CLIP's tokenizer, "
            f"which has {_END_ID + 1}"
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
            "bos_token_id": _START_ID,
            "eos_token_id": _END_ID,
            "pad_token_id": _END_ID,
            **_tower_settings(text, architecture),
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": image.resolution,
            "patch_size": image.patch,
            **_tower_settings(image, architecture),
        },
    }


def _tower_settings(tower: TextTransformer | VisionTransformer, architecture: Architecture) -> Json:
    return {
        "hidden_size": tower.width,
        "intermediate_size": 4 * tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads or tower.width // 64,
        "projection_dim": architecture.embed_dim,
        "hidden_act": architecture.activation,
        "layer_norm_eps": 1e-5,
    }


def _processor(preprocess: Preprocess) -> Json:
    n = preprocess.resolution
    if preprocess.resize == "longest":
        raise CheckpointError(
            "transformers' CLIP processor cannot pad (resize = 'longest'); write this model as an open_clip folder"
        )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": n, "width": n} if preprocess.resize == "squash" else {"shortest_edge": n},
        "resample": _BILINEAR if preprocess.interpolation == "bilinear" else _BICUBIC,
        "do_center_crop": preprocess.resize == "shortest",
        "crop_size": {"height": n, "width": n},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _write_tokenizer(folder: Path, context_length: int) -> None:
    """The vocabulary in transformers' two files: tokens by number, and merges."""
    merges = read_merges().decode().splitlines()
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    # Bytes that cannot be printed are spelled as the characters from U+0100.
    bytes_ = [*map(chr, printable), *map(chr, range(256, 512 - len(printable)))]
    tokens = [
        *bytes_,
        *(f"{byte}</w>" for byte in bytes_),
        *(line.replace(" ", "") for line in merges),
        _START,
        _END,
    ]
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    names = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context_length, **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", names)
