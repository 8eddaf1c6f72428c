"""The features of random models, ours against three independent implementations.

Weights travel as files, in both directions; the largest difference of a feature, over the largest feature, stays
within 1e-5 in float32 and 1e-10 in float64. Every published architecture is compared with its own layers and tiny
widths; at full size, ViT-B/32 by default and all nine nightly.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import (
    PUBLISHED,
    Architecture,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.image_model import ImageModel
from diptych.weights.foreign.openai import openai_layout
from diptych.weights.formats import load_path
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder
from tests.parity.random_models import Features, distance, features, random_inputs, random_model, small

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = list(TOLERANCE)
QUICK = ("ViT-B/32",)
VITS = [name for name in PUBLISHED if name.startswith("ViT")]

SMALL = {name: small(name) for name in PUBLISHED}
# What the configurations of transformers' CLIP can have otherwise than OpenAI's models.
SWITCHED = Architecture(
    embed_dim=64,
    image=VisionTransformer(resolution=64, patch=32, width=128, layers=12, mlp_width=300, epsilon=1e-2),
    text=TextTransformer(width=128, layers=12, mlp_width=279, activation="gelu_tanh"),
    activation="gelu",
)
NIGHTLY_WHOLE = [
    pytest.param(PUBLISHED[name], id=f"{name}-whole", marks=pytest.mark.nightly) for name in PUBLISHED
]
NIGHTLY_WHOLE_VITS = [parameter for parameter in NIGHTLY_WHOLE if str(parameter.id).startswith("ViT")]
OPENAI_SIZES = [
    *(pytest.param(SMALL[name], id=name) for name in PUBLISHED),
    *(pytest.param(PUBLISHED[name], id=f"{name}-whole") for name in QUICK),
    *(parameter for parameter in NIGHTLY_WHOLE if str(parameter.id).removesuffix("-whole") not in QUICK),
]


def _openai_twin(openai_model: Any, model: ImageModel) -> nn.Module:
    """OpenAI's class with the weights of `model`."""
    size, text = model.architecture.image, model.architecture.text
    assert isinstance(text, TextTransformer)
    with torch.device("meta"):
        twin: nn.Module = openai_model.CLIP(
            embed_dim=model.architecture.embed_dim,
            image_resolution=size.resolution,
            vision_layers=size.layers,
            vision_width=size.width,
            vision_patch_size=size.patch if isinstance(size, VisionTransformer) else None,
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            transformer_width=text.width,
            transformer_heads=text.width // 64,
            transformer_layers=text.layers,
        )
    layout = openai_layout("")
    twin.load_state_dict(
        {layout(name).names[0]: value for name, value in model.state_dict().items()}, assign=True
    )
    # The causal masks are no part of the state dict, so they are still on the meta device.
    for block in twin.get_submodule("transformer.resblocks").children():
        block.attn_mask = torch.full((77, 77), float("-inf")).triu_(1)
    return twin.eval()


@torch.inference_mode()
def _openai_features(twin: Any, model: ImageModel, dtype: torch.dtype) -> Features:
    pixels, tokens = random_inputs(model, dtype)
    return Features(twin.encode_image(pixels), twin.encode_text(tokens))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("architecture", OPENAI_SIZES)
def test_features_equal_those_of_openais_package(
    openai_model: Any, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, dtype: torch.dtype
) -> None:
    # Its layer norm computes in float32 whatever it is given, which would hide what float64 shows.
    monkeypatch.setattr(openai_model.LayerNorm, "forward", nn.LayerNorm.forward)
    model = random_model(architecture, dtype)
    twin = _openai_twin(openai_model, model)
    assert distance(features(model, dtype), _openai_features(twin, model, dtype)) <= TOLERANCE[dtype]


def test_logits_equal_those_of_openais_package(openai_model: Any) -> None:
    model = random_model(SMALL["ViT-B/32"])
    twin = _openai_twin(openai_model, model)
    pixels, tokens = random_inputs(model)
    with torch.inference_mode():
        ours, theirs = model(pixels, tokens), twin(pixels, tokens)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def _open_clip_features(theirs: Any, model: ImageModel, dtype: torch.dtype) -> Features:
    pixels, tokens = random_inputs(model, dtype)
    theirs = theirs.to(dtype).eval()
    return Features(theirs.encode_image(pixels), theirs.encode_text(tokens))


@pytest.mark.parametrize(
    "architecture", [*(pytest.param(SMALL[name], id=name) for name in PUBLISHED), *NIGHTLY_WHOLE]
)
def test_open_clip_reads_our_folder_and_we_read_what_it_has(
    open_clip: Any, tmp_path: Path, architecture: Architecture
) -> None:
    model = random_model(architecture)
    preprocess = Preprocess(architecture.image.resolution)
    write_open_clip_folder(tmp_path / "ours", model, preprocess)
    theirs = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'ours'}", return_transform=False)
    returned, returned_preprocess = _back_from_open_clip(theirs, tmp_path)
    assert returned.architecture == architecture
    assert returned_preprocess == preprocess
    for dtype in DTYPES:
        expected = _open_clip_features(theirs, model, dtype)
        for ours in (model, returned):
            assert distance(features(ours.to(dtype), dtype), expected) <= TOLERANCE[dtype]


def _back_from_open_clip(theirs: Any, tmp_path: Path) -> tuple[ImageModel, Preprocess]:
    """Their weights as their trainer saves them, beside the configuration that we wrote for them."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.save(theirs.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_bytes((tmp_path / "ours" / "open_clip_config.json").read_bytes())
    return load_path(folder)


@torch.inference_mode()
def _transformers_features(theirs: Any, model: ImageModel, dtype: torch.dtype) -> Features:
    pixels, tokens = random_inputs(model, dtype)
    theirs = theirs.to(dtype).eval()
    return Features(
        theirs.get_image_features(pixel_values=pixels).pooler_output,
        theirs.get_text_features(input_ids=tokens).pooler_output,
    )


@pytest.mark.parametrize(
    "architecture",
    [
        *(pytest.param(SMALL[name], id=name) for name in VITS),
        pytest.param(SWITCHED, id="switched"),
        *NIGHTLY_WHOLE_VITS,
    ],
)
def test_transformers_reads_our_folder_and_we_read_what_it_writes(
    transformers: Any, tmp_path: Path, architecture: Architecture
) -> None:
    model = random_model(architecture)
    preprocess = Preprocess(architecture.image.resolution)
    write_transformers_folder(tmp_path / "ours", model, preprocess)
    theirs, report = transformers.CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="4MB")
    (tmp_path / "theirs" / "preprocessor_config.json").write_bytes(
        (tmp_path / "ours" / "preprocessor_config.json").read_bytes()
    )
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    returned, returned_preprocess = load_path(tmp_path / "theirs")
    assert returned.architecture == architecture
    assert returned_preprocess == preprocess
    for dtype in DTYPES:
        expected = _transformers_features(theirs, model, dtype)
        for ours in (model, returned):
            assert distance(features(ours.to(dtype), dtype), expected) <= TOLERANCE[dtype]


def test_the_distance_sees_one_swapped_activation() -> None:
    """The control: a model that differs by the wrong GELU is a thousand tolerances away."""
    architecture = SMALL["ViT-B/32"]
    model = random_model(architecture)
    wrong = random_model(
        Architecture(
            embed_dim=architecture.embed_dim,
            image=architecture.image,
            text=architecture.text,
            activation="gelu",
        )
    )
    assert distance(features(wrong), features(model)) > 1000 * TOLERANCE[torch.float32]


def test_the_small_forms_have_the_published_layers_and_several_heads() -> None:
    for name, architecture in SMALL.items():
        published = PUBLISHED[name]
        assert architecture.image.layers == published.image.layers
        channels = architecture.image.width * (32 if isinstance(architecture.image, ModifiedResNet) else 1)
        assert channels // 64 > 1
