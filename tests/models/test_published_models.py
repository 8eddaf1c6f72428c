"""The nine published architectures: sizes, names and shapes of the weights, beside OpenAI's own code."""

from typing import Any

import pytest
import torch

from diptych.models.architectures import (
    PUBLISHED,
    Architecture,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model

# Parameters of the image tower and of the text tower with its embeddings and projection, counted in OpenAI's code.
VISUAL_AND_TEXT = {
    "RN50": (38_316_896, 63_690_240),
    "RN101": (56_259_936, 63_428_096),
    "RN50x4": (87_137_080, 91_163_520),
    "RN50x16": (167_328_912, 123_650_304),
    "RN50x64": (420_380_352, 202_877_952),
    "ViT-B/32": (87_849_216, 63_428_096),
    "ViT-B/16": (86_192_640, 63_428_096),
    "ViT-L/14": (303_966_208, 123_650_304),
    "ViT-L/14@336px": (304_293_888, 123_650_304),
}


def original(openai_model: Any, architecture: Architecture) -> torch.nn.Module:
    """The same architecture in OpenAI's code."""
    image, text = architecture.image, architecture.text
    assert isinstance(text, TextTransformer)
    model: torch.nn.Module = openai_model.CLIP(
        embed_dim=architecture.embed_dim,
        image_resolution=image.resolution,
        vision_layers=image.layers,
        vision_width=image.width,
        vision_patch_size=image.patch if isinstance(image, VisionTransformer) else None,
        context_length=text.context_length,
        vocab_size=text.vocab_size,
        transformer_width=text.width,
        transformer_heads=text.width // 64,
        transformer_layers=text.layers,
    )
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_tower_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build_model(PUBLISHED[name])
    counts = [sum(value.numel() for value in tower.parameters()) for tower in (model.visual, model.text)]
    assert tuple(counts) == VISUAL_AND_TEXT[name]
    assert sum(value.numel() for value in model.parameters()) == sum(counts) + 1  # the logit scale


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_weights_have_the_names_and_shapes_of_the_original(name: str, openai_model: Any) -> None:
    with torch.device("meta"):
        ours = build_model(PUBLISHED[name]).state_dict()
        theirs = original(openai_model, PUBLISHED[name]).state_dict()
    in_our_layout = {
        key if key.startswith("visual.") or key == "logit_scale" else f"text.{key}": value.shape
        for key, value in theirs.items()
    }
    assert {key: value.shape for key, value in ours.items()} == in_our_layout


@pytest.mark.parametrize(
    "image",
    [
        VisionTransformer(resolution=32, patch=8, width=64, layers=2),
        ModifiedResNet(resolution=64, layers=(1, 2, 1, 1), width=8, heads=4),
    ],
)
def test_top_level_text_weights_load_and_give_the_original_logits(
    image: VisionTransformer | ModifiedResNet, openai_model: Any
) -> None:
    torch.manual_seed(0)
    text = TextTransformer(width=64, layers=2, context_length=9, vocab_size=50)
    architecture = Architecture(embed_dim=16, image=image, text=text)
    theirs = original(openai_model, architecture).eval()
    state = theirs.state_dict()
    ours = build_model(architecture).eval()
    ours.load_state_dict(state)
    pixels, tokens = torch.randn(3, 3, image.resolution, image.resolution), torch.randint(50, (4, 9))
    for mine, reference in zip(ours(pixels, tokens), theirs(pixels, tokens), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    assert "token_embedding.weight" in state, "loading must not change the caller's state dict"
