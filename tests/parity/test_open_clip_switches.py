"""Models of open_clip that differ from OpenAI's by switches of their configuration, both ways.

A folder that we write is read by open_clip, and what open_clip then has is read by us. Features of images and of texts
are equal within 1e-5 of the largest in float32, and 1e-10 in float64.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.image_model import ImageModel
from diptych.weights.formats import load_path
from tests.foreign_folders import write_open_clip_folder
from tests.parity.random_models import Features, distance, random_model

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CONTEXT, VOCABULARY = 16, 300

IMAGE = VisionTransformer(resolution=56, patch=14, width=64, layers=3, heads=4)
TEXT = TextTransformer(width=32, layers=3, heads=2, context_length=CONTEXT, vocab_size=VOCABULARY)
PLAIN = Architecture(embed_dim=32, image=IMAGE, text=TEXT, activation="gelu")

IMAGE_SWITCHES: dict[str, dict[str, Any]] = {
    "mlp-of-bigG": {"width": 104, "mlp_width": 512, "heads": 1},  # ratio 4.9231, rounded down
    "mlp-of-an-odd-width": {"mlp_width": 279},
    "no-first-norm": {"first_norm": False},
    "mean-of-normed-patches": {"pool": "mean"},
    "norm-of-the-mean": {"pool": "mean", "norm_after_pool": True},
    "image-layer-scale": {"layer_scale": 0.1},
    "image-epsilon": {"epsilon": 1e-2},
    "image-tanh": {"activation": "gelu_tanh"},
    "sinusoidal-grid": {"positions": "sinusoidal"},
    "heads-of-16-channels": {"heads": 4},
}
TEXT_SWITCHES: dict[str, dict[str, Any]] = {
    "text-mlp": {"mlp_width": 119},  # ratio 3.7362
    "every-token-sees-every-other": {"causal": False},
    "first-token": {"pool": "first"},
    "last-token": {"pool": "last"},
    "last-token-of-both-ways": {"causal": False, "pool": "last"},
    "end-token-of-an-id": {"end_id": 7},
    "end-token-of-an-id-both-ways": {"end_id": 7, "causal": False},
    "biased-projection": {"projection": "biased"},
    "no-projection": {"projection": "none"},
    "text-layer-scale": {"layer_scale": 0.1},
    "text-epsilon": {"epsilon": 1e-2},
    "text-tanh": {"activation": "gelu_tanh"},
}
SWITCHES = {
    **{
        name: dataclasses.replace(PLAIN, image=dataclasses.replace(IMAGE, **changes))
        for name, changes in IMAGE_SWITCHES.items()
    },
    **{
        name: dataclasses.replace(PLAIN, text=dataclasses.replace(TEXT, **changes))
        for name, changes in TEXT_SWITCHES.items()
    },
    # What CLIPA has, and the two together.
    "clipa": dataclasses.replace(
        PLAIN,
        image=dataclasses.replace(IMAGE, first_norm=False, pool="mean", norm_after_pool=True),
        text=dataclasses.replace(TEXT, causal=False, pool="last"),
    ),
}
# Full widths, one layer: ViT-bigG-14 of LAION.
BIG = Architecture(
    embed_dim=1280,
    image=VisionTransformer(resolution=28, patch=14, width=1664, layers=1, heads=16, mlp_width=8192),
    text=TextTransformer(width=1280, layers=1, context_length=CONTEXT, vocab_size=VOCABULARY),
    activation="gelu",
)


def inputs(model: ImageModel, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pixels, and texts of several lengths in which id 7 stands once before the largest id."""
    n = model.visual.input_resolution
    pixels = torch.randn(3, 3, n, n, generator=torch.Generator().manual_seed(1)).to(dtype)
    tokens = torch.randint(8, VOCABULARY - 1, (3, CONTEXT), generator=torch.Generator().manual_seed(2))
    for row, length in zip(tokens, (5, CONTEXT - 1, 9), strict=True):
        row[length - 2], row[length] = 7, VOCABULARY - 1
        row[length + 1 :] = 0
    return pixels, tokens


def features(model: Any, like: ImageModel, dtype: torch.dtype, *, gradients: bool = False) -> Features:
    """Of `model`, ours or theirs. gradients: the other way through our towers."""
    pixels, tokens = inputs(like, dtype)
    with torch.set_grad_enabled(gradients):
        return Features(model.encode_image(pixels).detach(), model.encode_text(tokens).detach())


def awake(architecture: Architecture) -> ImageModel:
    """A random model in which the scales of layers differ, too."""
    model = random_model(architecture)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gamma"):
                value.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize(
    "architecture", [*(pytest.param(a, id=n) for n, a in SWITCHES.items()), pytest.param(BIG, id="bigG")]
)
def test_a_switch_of_open_clip_is_the_same_here(
    open_clip: Any, tmp_path: Path, architecture: Architecture
) -> None:
    model, preprocess = awake(architecture), Preprocess(architecture.image.resolution)
    write_open_clip_folder(tmp_path / "ours", model, preprocess)
    theirs = open_clip.create_model_from_pretrained(
        f"local-dir:{tmp_path / 'ours'}", return_transform=False
    ).eval()
    (tmp_path / "theirs").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "open_clip_pytorch_model.bin")
    (tmp_path / "theirs" / "open_clip_config.json").write_bytes(
        (tmp_path / "ours" / "open_clip_config.json").read_bytes()
    )
    returned, _ = load_path(tmp_path / "theirs")
    assert returned.architecture == architecture
    for dtype, tolerance in TOLERANCE.items():
        expected = features(theirs.to(dtype), model, dtype)
        for ours in (model, returned):
            for gradients in (False, True):
                found = features(ours.to(dtype), model, dtype, gradients=gradients)
                assert distance(found, expected) <= tolerance, (dtype, gradients)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_shows_in_the_features(name: str) -> None:
    """The control: without the switch the same weights, as far as they fit, give other features."""
    model = awake(SWITCHES[name])
    other = awake(
        dataclasses.replace(PLAIN, image=dataclasses.replace(IMAGE, heads=2)) if "heads" in name else PLAIN
    )
    theirs = other.state_dict()
    if "sinusoidal" in name:
        del theirs["visual.positional_embedding"]
    fitting = {
        key: value
        for key, value in model.state_dict().items()
        if key in theirs and value.shape == theirs[key].shape
    }
    other.load_state_dict(fitting, strict=False)
    found, without = (features(one, model, torch.float32) for one in (model, other))
    assert distance(found, without) > 5 * TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", ["last-token", "every-token-sees-every-other"])
def test_a_text_whose_padding_counts_has_its_whole_length(name: str) -> None:
    model = awake(SWITCHES[name])
    _, tokens = inputs(model, torch.float32)
    with pytest.raises(
        SettingsError, match=r"expected \(batch, 16\), found \(3, 10\); in this model the padding"
    ):
        model.encode_text(tokens[:, :10])


@pytest.mark.parametrize("name", ["mean-of-normed-patches", "norm-of-the-mean"])
def test_a_mean_is_the_first_token_and_is_over_the_patches_that_are_kept(name: str) -> None:
    model = awake(SWITCHES[name])
    visual = model.visual
    pixels, _ = inputs(model, torch.float32)
    assert isinstance(model.architecture.image, VisionTransformer)
    every = torch.arange(model.architecture.image.patches).expand(len(pixels), -1)
    with torch.no_grad():
        torch.testing.assert_close(visual.tokens(pixels)[:, 0], visual.features(pixels))
        torch.testing.assert_close(visual(pixels, every), visual(pixels))
        assert not torch.allclose(visual(pixels, every[:, 1:]), visual(pixels))
