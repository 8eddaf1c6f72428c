"""The loss of a model that cannot tell anything apart, which is about where a run from scratch starts."""

import math
from collections.abc import Callable

from diptych.models.architectures import (
    Architecture,
    Captioner,
    LabelHead,
    SharedEncoder,
    TextTransformer,
    WordPredictor,
)
from diptych.training.settings import Recipe


def guessing_loss(recipe: Recipe, architecture: Architecture) -> float | None:
    """Return the expected loss, in nats, of a model with first weights; None where a teacher or a start decides it.

    Similarities are taken as equal, and for siglip, whose loss depends on their value, as 0. None, too, for a label
    head whose classes the data have still to give, and for a text side that the approach cannot train.
    """
    sides = _SIDES.get(recipe.objective.name)
    if sides is not None and not isinstance(architecture.text, sides):
        return None
    expected = _LOSSES.get(recipe.objective.name)
    return None if expected is None else expected(recipe, architecture)


def _contrastive(recipe: Recipe, _: Architecture) -> float:
    return math.log(recipe.training.batch_size)


def _two_views(recipe: Recipe, _: Architecture) -> float:
    return math.log(2 * recipe.training.batch_size - 1)


def _sigmoid(recipe: Recipe, architecture: Architecture) -> float:
    """One partner, which the bias says is none, and others, of which it says so rightly."""
    bias = -10.0 if architecture.logit_bias is None else architecture.logit_bias
    return math.log1p(math.exp(-bias)) + (recipe.training.batch_size - 1) * math.log1p(math.exp(bias))


def _language(_: Recipe, architecture: Architecture) -> float:
    text = architecture.text
    assert isinstance(text, TextTransformer)
    return math.log(_words(text.known, text.vocab_size))


def _clip_language(recipe: Recipe, architecture: Architecture) -> float:
    return _contrastive(recipe, architecture) + recipe.objective.language_weight * _language(
        recipe, architecture
    )


def _captioning(_: Recipe, architecture: Architecture) -> float:
    text = architecture.text
    assert isinstance(text, Captioner)
    return (2 if text.reads == "both" else 1) * math.log(_words(text.known, text.vocab_size))


def _word_prediction(_: Recipe, architecture: Architecture) -> float:
    text = architecture.text
    assert isinstance(text, WordPredictor)
    words = _words(text.known, text.vocab_size)
    return math.log(words) if text.word_loss == "softmax" else words * math.log(2)


def _shre(recipe: Recipe, architecture: Architecture) -> float | None:
    """Every other row of a modality is nearer than by the margin, at each layer and in both directions."""
    text, rows = architecture.text, recipe.training.batch_size
    assert isinstance(text, SharedEncoder)
    if recipe.objective.teacher is not None:
        return None
    shown = [rows] if not text.sound_bands else [rows - rows // 2, rows // 2]
    ranked = sum(count * (count - 1) for count in shown) / rows
    return recipe.objective.ranking_weight * len(text.hidden) * 2 * ranked * recipe.objective.margin


def _labels(_: Recipe, architecture: Architecture) -> float | None:
    text = architecture.text
    assert isinstance(text, LabelHead)
    return math.log(len(text.classes)) if text.classes else None


def _label_distillation(recipe: Recipe, architecture: Architecture) -> float | None:
    """A new head gives all classes one probability, whatever the teacher says."""
    share, labels = recipe.objective.label_weight, _labels(recipe, architecture)
    return None if labels is None else (share + (1 - share) * recipe.objective.temperature**2) * labels


def _words(known: tuple[int, ...], vocab_size: int) -> int:
    """Rows of a table of words: with known ones the two ends of a text and one row for all others are among them."""
    return len({*known, vocab_size - 2, vocab_size - 1}) + 1 if known else vocab_size


# The text sides that an approach asks for, where its loss depends on their sizes.
_SIDES: dict[str, type] = {
    "clip-language": TextTransformer,
    "language": TextTransformer,
    "shre": SharedEncoder,
    "captioning": Captioner,
    "word-prediction": WordPredictor,
    "labels": LabelHead,
    "label-distillation": LabelHead,
}
# clip-distillation and classifier are not here: a teacher, and the start, decide.
_LOSSES: dict[str, Callable[[Recipe, Architecture], float | None]] = {
    "clip": _contrastive,
    "siglip": _sigmoid,
    "clip-language": _clip_language,
    "language": _language,
    "shre": _shre,
    "captioning": _captioning,
    "word-prediction": _word_prediction,
    "simclr": _two_views,
    "labels": _labels,
    "label-distillation": _label_distillation,
    "convirt": _contrastive,
    "lit": _contrastive,
}
