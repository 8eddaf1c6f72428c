"""SHRe's encoders: what padding does, what is shared, and where modalities meet."""

import pytest
import torch
from torch import nn

from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, SharedEncoder, VisionTransformer
from diptych.models.building import build_model
from diptych.models.shared import SharedModel
from diptych.models.shared_encoder import SharedEncoder as Encoder
from tests.models.small_models import CONTEXT, VOCABULARY, random_texts


def model_of(bands: int = 6) -> SharedModel:
    torch.manual_seed(0)
    model = build_model(
        Architecture(
            embed_dim=10,
            image=VisionTransformer(resolution=32, patch=16, width=16, layers=1, heads=2),
            text=SharedEncoder(
                hidden=(12, 10),
                classes=5,
                width=6,
                sound_bands=bands,
                sound_frames=9,
                context_length=CONTEXT,
                vocab_size=VOCABULARY,
            ),
        )
    ).double()
    assert isinstance(model, SharedModel)
    return model


def test_padding_changes_nothing_and_every_word_does() -> None:
    words = model_of().text.words
    tokens = random_texts([5, 12])
    padded = tokens.clone()
    padded[0, 5:] = 7
    torch.testing.assert_close(words(padded), words(tokens), rtol=0, atol=0)
    torch.testing.assert_close(words(tokens[:1, :5]), words(tokens[:1]))
    for place in range(1, 4):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 50
        assert not torch.equal(words(changed)[0], words(tokens)[0])


def test_all_modalities_go_through_the_same_layers_to_where_they_meet() -> None:
    model = model_of()
    pixels, tokens, sounds = torch.randn(2, 3, 32, 32), random_texts([4, 6]), torch.rand(2, 9, 6)
    meeting = [model.encode_image(pixels), model.encode_text(tokens), model.text.encode_sound(sounds)]
    assert [tuple(each.shape) for each in meeting] == [(2, 10)] * 3
    layers = model.text.layers(model.visual(pixels.double()))
    assert [layer.shape[1] for layer in layers] == [12, 10, 5]
    assert torch.equal(layers[1], meeting[0])
    assert all((layer >= 0).all() for layer in layers[:-1])
    torch.cat(meeting).sum().backward()
    first = model.text.shared[0]
    assert isinstance(first, nn.Linear)
    assert first.weight.grad is not None
    assert first.weight.grad.any()


def test_a_model_without_sounds_says_so() -> None:
    model = model_of(bands=0)
    with pytest.raises(SettingsError, match="sound_bands"):
        model.text.encode_sound(torch.rand(1, 9, 6))


def test_modalities_meet_in_the_space_that_the_architecture_names() -> None:
    size = SharedEncoder(hidden=(12, 8), classes=5, width=6)
    with pytest.raises(SettingsError, match="embed_dim = 10"):
        Encoder(size, 10)
