"""The public methods of a model, for every pair of towers."""

import re

import pytest
import torch

from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, ModifiedResNet, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from tests.models.small_models import (
    CONTEXT,
    IMAGE_TOWERS,
    TEXT_TOWERS,
    VOCABULARY,
    random_texts,
    small_model,
)


def test_public_methods_give_the_documented_shapes(image_tower: str, text_tower: str) -> None:
    model = small_model(image_tower, text_tower, torch.float32)
    size, text = IMAGE_TOWERS[image_tower], TEXT_TOWERS[text_tower]
    assert model.architecture == Architecture(embed_dim=24, image=size, text=text)
    assert (model.context_length, model.vocab_size, model.dtype) == (CONTEXT, VOCABULARY, torch.float32)
    assert (model.visual.input_resolution, model.visual.output_dim) == (size.resolution, 24)
    width, patches = {
        "vit": (128, 16),
        "resnet": (256, 4),
        "resnet-stem-stride-2": (256, 16),
    }[image_tower]
    pixels = torch.randn(3, 3, size.resolution, size.resolution)
    tokens = random_texts([4, 2, 7, 3, 6])
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            per_image, per_text = model(pixels, tokens)
            shapes = {
                "encode_image": model.encode_image(pixels).shape,
                "encode_text": model.encode_text(tokens).shape,
                "image_features": model.image_features(pixels).shape,
                "image_tokens": model.image_tokens(pixels).shape,
                "text_tokens": model.text_tokens(tokens).shape,
                "logits": (per_image.shape, per_text.shape),
            }
        assert shapes == {
            "encode_image": (3, 24),
            "encode_text": (5, 24),
            "image_features": (3, width),
            "image_tokens": (3, 1 + patches, width),
            "text_tokens": (5, CONTEXT, model.text.token_embedding.embedding_dim)
            if text_tower == "bag-of-words"
            else (5, CONTEXT, 128),
            "logits": ((3, 5), (5, 3)),
        }


def test_logits_are_scaled_cosines() -> None:
    model = small_model()
    pixels, tokens = torch.randn(2, 3, 32, 32), random_texts([3, 5, 4])
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(tokens)
        per_image, per_text = model(pixels, tokens)
    assert torch.equal(per_image.T, per_text)
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            cosine = (image @ text) / (image.square().sum().sqrt() * text.square().sum().sqrt())
            assert per_image[i, j].item() == pytest.approx(cosine.item() / 0.07, rel=1e-6)


def test_pixels_are_taken_in_any_precision() -> None:
    model = small_model(dtype=torch.float32)
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(model.encode_image(pixels), model.encode_image(pixels.float()))


@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (3, 32, 32), (2, 1, 32, 32), (2, 3, 32, 40)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = small_model()
    for method in (model.encode_image, model.image_features, model.image_tokens):
        with pytest.raises(SettingsError, match=re.escape(f"expected (batch, 3, 32, 32), found {shape}")):
            method(torch.zeros(shape))


@pytest.mark.parametrize(
    ("image", "stride"),
    [
        (VisionTransformer(resolution=50, patch=16, width=64, layers=1), 16),
        (ModifiedResNet(resolution=48, layers=(1, 1, 1, 1), width=8), 32),
        (ModifiedResNet(resolution=40, layers=(1, 1, 1, 1), width=8, stem_stride=2), 16),
    ],
)
def test_a_resolution_that_the_stride_does_not_divide_is_refused(
    image: VisionTransformer | ModifiedResNet, stride: int
) -> None:
    text = TextTransformer(width=64, layers=1, vocab_size=50)
    with pytest.raises(
        SettingsError, match=f"resolution {image.resolution} is not a multiple of .* {stride}"
    ):
        build_model(Architecture(embed_dim=8, image=image, text=text))


def test_a_missing_and_an_unknown_weight_are_still_reported() -> None:
    model = small_model()
    state = model.state_dict()
    del state["text.ln_final.bias"]
    state["transformer_extra"] = torch.zeros(1)
    with pytest.raises(
        RuntimeError, match=r'(?s)Missing.*"text.ln_final.bias".*Unexpected.*"transformer_extra"'
    ):
        model.load_state_dict(state)


def test_a_model_inside_another_module_loads_the_published_layout() -> None:
    model = torch.nn.ModuleDict({"student": small_model()})
    state = {key.replace("student.text.", "student."): value + 1 for key, value in model.state_dict().items()}
    assert "student.ln_final.weight" in state
    model.load_state_dict(state)
    assert torch.equal(model.state_dict()["student.text.ln_final.weight"], state["student.ln_final.weight"])


def test_a_bag_of_words_in_half_precision_keeps_its_embeddings_in_float32() -> None:
    model = small_model(text="bag-of-words", dtype=torch.float32)
    tokens = random_texts([4, 7])
    expected = model.encode_text(tokens)
    assert isinstance(model.text.text_projection, torch.nn.Parameter)
    model.text.text_projection.data = model.text.text_projection.data.half()
    found = model.encode_text(tokens)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=5e-3, atol=5e-3)
