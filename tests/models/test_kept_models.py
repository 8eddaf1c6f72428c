"""Models of every kind that were saved before each kind had a class of its own (commit cb0d4a1) still answer alike.

`kept/KIND` is a checkpoint, and `answers.json` in it says its fingerprint and what the model then made of `PIXELS`,
`TOKENS` and `SOUNDS`. What is not among the answers, the model refuses in words.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.building import build_model
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from diptych.models.image_only import LabelModel, TwoViewModel
from diptych.models.predictive import CaptioningModel, WordPredictionModel
from diptych.models.shared import SharedModel
from diptych.pretrained import fingerprint, load

KEPT = Path(__file__).parent / "kept"
KINDS: dict[str, type[ImageModel]] = {
    "transformer": CLIP,
    "siglip": CLIP,
    "convirt": CLIP,
    "bag_of_words": CLIP,
    "classifier_of_embedding": CLIP,
    "classifier_of_features": CLIP,
    "low_rank": CLIP,
    "captioner": CaptioningModel,
    "masked_captioner": CaptioningModel,
    "word_predictor": WordPredictionModel,
    "shared_encoder": SharedModel,
    "projection_head": TwoViewModel,
    "label_head": LabelModel,
}
_DRAWS = torch.Generator().manual_seed(1)
PIXELS = torch.rand(2, 3, 16, 16, generator=_DRAWS) * 2 - 1
SOUNDS = torch.rand(2, 4, 3, generator=_DRAWS)
TOKENS = torch.tensor([[18, 3, 5, 19, 0, 0], [18, 7, 3, 5, 4, 19]])


def likelihoods(model: ImageModel) -> tuple[Tensor, Tensor]:
    predictor = model.text_predictor
    if predictor is None:
        raise SettingsError("predicts no texts")
    return predictor.likelihoods(predictor.see(PIXELS), TOKENS)


def encoded_sounds(model: ImageModel) -> Tensor:
    if model.sound_encoder is None:
        raise SettingsError("hears nothing")
    return model.sound_encoder.encode_sound(SOUNDS)


QUESTIONS: dict[str, Callable[[ImageModel], Tensor]] = {
    "image_features": lambda model: model.image_features(PIXELS),
    "image_tokens": lambda model: model.image_tokens(PIXELS),
    "encode_image": lambda model: model.encode_image(PIXELS),
    "encode_text": lambda model: model.encode_text(TOKENS),
    "text_tokens": lambda model: model.text_tokens(TOKENS),
    "logits": lambda model: model(PIXELS, TOKENS)[0],
    "class_logits": lambda model: model.classify(PIXELS),
    "mean_likelihood": lambda model: likelihoods(model)[0],
    "likelihood": lambda model: likelihoods(model)[1],
    "encode_sound": encoded_sounds,
}


@pytest.mark.parametrize("kind", list(KINDS))
@torch.inference_mode()
def test_a_model_saved_before_answers_what_it_answered(kind: str) -> None:
    model, preprocess = load(KEPT / kind, "cpu")
    said = json.loads((KEPT / kind / "answers.json").read_text())
    assert type(model) is KINDS[kind]
    assert fingerprint(model, preprocess) == said["fingerprint"]
    answers = dict(said["answers"])
    for name, ask in QUESTIONS.items():
        if name in answers:
            # Other processors add up in another order.
            torch.testing.assert_close(ask(model), torch.tensor(answers.pop(name)), rtol=1e-5, atol=1e-6)
        else:
            with pytest.raises(SettingsError):
                ask(model)
    assert answers == {}


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_a_model_says_it_can_do_is_what_it_does(kind: str) -> None:
    model, _ = load(KEPT / kind, "cpu")
    answers = json.loads((KEPT / kind / "answers.json").read_text())["answers"]
    assert model.embeds_texts == ("encode_text" in answers)
    assert (model.class_head is not None) == ("class_logits" in answers)
    assert (model.sound_encoder is not None) == ("encode_sound" in answers)
    assert (model.caption_writer is not None) == (kind == "captioner")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "captioner",
            "the model is a captioner, which embeds no texts; to compare .*with a text tower; `diptych caption` and ",
        ),
        (
            "word_predictor",
            "a predictor of words, which embeds no texts; .*; `diptych evaluate zero-shot` uses",
        ),
        (
            "label_head",
            "trained on labels, which embeds no texts; .*; `diptych classify` and `diptych evaluate labels`",
        ),
        (
            "projection_head",
            "trained on images alone, which embeds no texts; .*; `diptych evaluate linear-probe`",
        ),
    ],
)
def test_a_model_without_embeddings_of_texts_names_the_commands_for_what_it_can_do(
    kind: str, said: str
) -> None:
    model, _ = load(KEPT / kind, "cpu")
    for ask in (model.encode_text, lambda tokens: model(PIXELS, tokens)):
        with pytest.raises(SettingsError, match=said):
            ask(TOKENS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_new_model_has_the_weights_of_the_kept_one(kind: str) -> None:
    model, _ = load(KEPT / kind, "cpu")
    target = build_model(model.architecture)
    assert type(target) is type(model)
    assert list(target.state_dict()) == list(model.state_dict())
    target.load_state_dict(model.state_dict())
