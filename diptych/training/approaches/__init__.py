"""Where a model meets an objective: one file an approach, and the table by which a recipe names them."""

from collections.abc import Mapping
from typing import Any

from diptych.training.approaches import (
    captioning,
    classifier,
    clip_distillation,
    contrastive,
    convirt,
    label_distillation,
    language,
    lit,
    shre,
    siglip,
    simclr,
    supervised,
    word_prediction,
)
from diptych.training.approaches.approach import Approach

__all__ = ["APPROACHES"]

# The first one is that of a recipe which names none.
APPROACHES: Mapping[str, Approach[Any]] = {
    "clip": contrastive.APPROACH,
    "siglip": siglip.APPROACH,
    "clip-language": language.BESIDE_CLIP,
    "language": language.ALONE,
    "shre": shre.APPROACH,
    "captioning": captioning.APPROACH,
    "word-prediction": word_prediction.APPROACH,
    "simclr": simclr.APPROACH,
    "labels": supervised.APPROACH,
    "label-distillation": label_distillation.APPROACH,
    "convirt": convirt.APPROACH,
    "clip-distillation": clip_distillation.APPROACH,
    "classifier": classifier.APPROACH,
    "lit": lit.APPROACH,
}
