"""Zero-shot classification, word order and captions by models that predict texts, against one text at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.generated_captions import write_captions
from diptych.evaluation.word_order import evaluate_word_order
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.text_likelihood import class_likelihoods
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    Captioner,
    TextTransformer,
    VisionTransformer,
    WordPredictor,
)
from diptych.models.building import build_model
from diptych.models.capabilities import PredictsTexts
from diptych.models.heads.captioner import Captioner as CaptionSide
from diptych.models.heads.captioner import CellTower
from diptych.models.heads.word_predictor import WordPredictor as WordSide
from diptych.models.image_model import ImageModel
from diptych.tokenizer import tokenize
from diptych.weights.half_precision import to_half
from tests.tiny_model import RESOLUTION

PREPROCESS = Preprocess(RESOLUTION)
KNOWN = tuple(
    sorted(
        {
            i
            for word in ("a red blue green circle square ring left of above below right",)
            for i in tokenize(word)[0].tolist()
        }
    )
)
SIDES: dict[str, Captioner | WordPredictor | BagOfWords | TextTransformer] = {
    "captioner": Captioner(decoder_layers=1, reads="both", heads=2, context_length=16, known=KNOWN),
    "word-predictor": WordPredictor(word_loss="softmax", context_length=16, known=KNOWN),
    "masked": Captioner(decoder_layers=1, reads="masked", heads=2, context_length=16, known=KNOWN),
    "bag-of-words": BagOfWords(width=16, context_length=16),
    "transformer": TextTransformer(width=16, layers=2, heads=2, context_length=16),
}


def model_of(side: str) -> ImageModel:
    torch.manual_seed(1)
    model = build_model(
        Architecture(
            embed_dim=16,
            image=VisionTransformer(resolution=RESOLUTION, patch=8, width=16, layers=1, heads=2),
            text=SIDES[side],
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def likelihoods(
    model: ImageModel, pixels: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return predictor_of(model).likelihoods(predictor_of(model).see(pixels), tokens)


def predictor_of(model: ImageModel) -> PredictsTexts:
    found = model.text_predictor
    assert found is not None
    return found


def one_by_one(model: ImageModel, pixels: torch.Tensor, text: str) -> tuple[float, float]:
    """log p of one text for one image by the definition: the mean, and the whole."""
    side = model.text
    assert isinstance(side, CaptionSide | WordSide)
    row = side.words.rows_of(tokenize([text]))[0]
    ids = row[: int(row.argmax()) + 1].tolist()
    if isinstance(side, WordSide):
        chances = side(model.visual(pixels[None]))[0]
        found = [chances[word].item() for word in set(ids[1:-1])]
        return sum(found) / len(found), sum(found)
    cells = CellTower(model.visual)(pixels[None])[0]
    found = [
        side.next_word(cells, torch.tensor([ids[:place]]))[0, ids[place]].item()
        for place in range(1, len(ids))
    ]
    return sum(found) / len(found), sum(found)


@pytest.mark.parametrize("side", ["captioner", "word-predictor"])
@torch.no_grad()
def test_a_text_is_as_likely_as_its_words_one_after_another(side: str) -> None:
    model, source = model_of(side), open_source("scenes:classes-test?count=3&side=16")
    texts = ["a red circle", "a blue square", "red", "a ring left of a red red square"]
    pixels = torch.stack([PREPROCESS(source[number].image) for number in range(3)])
    mean, whole = likelihoods(model, pixels, tokenize(texts, context_length=16))
    for row in range(3):
        for column, text in enumerate(texts):
            expected = one_by_one(model, pixels[row], text)
            assert (mean[row, column].item(), whole[row, column].item()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("side", ["captioner", "word-predictor"])
@torch.no_grad()
def test_an_image_tower_in_half_precision_gives_nearly_the_same_likelihoods(side: str) -> None:
    pixels = torch.stack([PREPROCESS(open_source("scenes:test?side=16")[0].image)])
    tokens = tokenize(["a red circle"], context_length=16)
    model = model_of(side)
    exact, _ = likelihoods(model, pixels, tokens)
    half, _ = likelihoods(to_half(model, torch.bfloat16), pixels.bfloat16(), tokens)
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("side", ["captioner", "word-predictor"])
def test_a_class_of_several_texts_has_their_mean_probability(side: str) -> None:
    model = model_of(side)
    pixels = [PREPROCESS(open_source("scenes:test?side=16")[0].image)]
    one = class_likelihoods(predictor_of(model), [["red circle"], ["a red circle"], ["blue"]])(pixels)[0]
    joined = class_likelihoods(predictor_of(model), [["red circle", "a red circle"], ["blue"]])(pixels)[0]
    np.testing.assert_allclose(joined[0], np.log(np.exp(one[:2]).mean()), rtol=1e-5)
    np.testing.assert_allclose(joined[2], np.log(np.exp(one[3:5]).mean()), rtol=1e-5)
    np.testing.assert_allclose(joined[[1, 3]], one[[2, 5]], rtol=1e-6)


@pytest.mark.parametrize("side", ["captioner", "word-predictor"])
def test_zero_shot_takes_the_class_whose_text_is_likeliest(side: str) -> None:
    model, source = model_of(side), open_source("scenes:classes-test?count=48&side=16")
    names = sorted({source[number].label or "" for number in range(48)})
    labels = LabelSet(tuple(names), tuple((f"a {name}",) for name in names))
    report = evaluate_zero_shot(
        model, PREPROCESS, source, model_name="tiny", labels=labels, group_by="combination"
    )
    with torch.no_grad():
        pixels = torch.stack([PREPROCESS(source[number].image) for number in range(48)])
        mean, whole = likelihoods(model, pixels, tokenize([f"a {name}" for name in names], context_length=16))
    right = torch.tensor([names.index(source[number].label or "") for number in range(48)])
    assert report.scores.metrics["top1"] == pytest.approx((mean.argmax(1) == right).float().mean().item())
    assert report.details["top1_whole_text"] == pytest.approx(
        (whole.argmax(1) == right).float().mean().item()
    )
    assert report.outcomes is not None
    assert report.outcomes.predicted is not None
    assert report.outcomes.predicted.tolist() == mean.argmax(1).tolist()
    assert set(report.groups) == {"seen", "unseen"}


@pytest.mark.parametrize("side", ["bag-of-words", "word-predictor"])
def test_who_ignores_the_order_of_words_is_at_chance_at_binding_to_the_last_picture(side: str) -> None:
    model = model_of(side)
    report = evaluate_word_order(
        model, PREPROCESS, open_source("scenes:binding?count=40&side=16"), model_name="tiny"
    )
    assert report.scores.metrics == {"accuracy": 0.5, "tied": 1.0}
    assert report.scores.chance == {"accuracy": 0.5}


@pytest.mark.parametrize("side", ["captioner", "transformer"])
def test_who_reads_the_order_has_a_preference(side: str) -> None:
    report = evaluate_word_order(
        model_of(side), PREPROCESS, open_source("scenes:binding?count=40&side=16"), model_name="tiny"
    )
    assert report.scores.metrics["tied"] < 0.1
    assert 0 < report.scores.metrics["accuracy"] < 1
    assert set(report.groups) == {"colours", "things"}
    both = [group.metrics["accuracy"] for group in report.groups.values()]
    assert report.scores.metrics["accuracy"] == pytest.approx(sum(both) / 2)


def test_word_order_wants_a_wrong_caption_and_says_where_there_are_some() -> None:
    with pytest.raises(DataError, match="scenes:binding has both"):
        evaluate_word_order(
            model_of("transformer"), PREPROCESS, open_source("scenes:test?count=4"), model_name=""
        )


def test_captions_are_written_again_the_same_and_their_likelihood_is_that_of_the_text(tmp_path: Path) -> None:
    model = model_of("captioner")
    images = [open_source("scenes:test?side=16")[number].image for number in range(2)]
    found = write_captions(model, PREPROCESS, images, beams=3)
    assert [each["image"] for each in found] == ["image 0", "image 1"]
    assert found == write_captions(model, PREPROCESS, images, beams=3)
    drawn = write_captions(model, PREPROCESS, images, nucleus=0.9, seed=4)
    assert drawn == write_captions(model, PREPROCESS, images, nucleus=0.9, seed=4)
    assert drawn != write_captions(model, PREPROCESS, images, nucleus=0.9, seed=5)
    assert all(each["log_likelihood"] < 0 for each in (*found, *drawn))


@pytest.mark.parametrize("side", ["masked", "transformer", "word-predictor"])
def test_models_that_write_no_captions_say_so(side: str) -> None:
    with pytest.raises(SettingsError, match="writes no captions"):
        write_captions(model_of(side), PREPROCESS, [])


@torch.no_grad()
def test_a_masked_captioner_and_an_embedding_have_no_probability_of_a_text() -> None:
    pixels, tokens = torch.zeros(1, 3, RESOLUTION, RESOLUTION), tokenize(["a"], context_length=16)
    with pytest.raises(SettingsError, match="hidden words"):
        likelihoods(model_of("masked"), pixels, tokens)
    assert model_of("transformer").text_predictor is None
