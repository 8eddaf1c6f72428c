"""Which words a caption has, from its image (the bag-of-words baseline of CLIP's Figure 2)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.models import architectures
from diptych.models.architectures import Architecture
from diptych.models.heads.word_predictor import WordPredictor, distinct_words
from diptych.models.image_model import ImageModel
from diptych.objectives.word_set import word_detection, word_prediction
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder
from diptych.training.encoding.features import guessed_words, of_kind

_GUESSED = 128  # rows of a process whose likeliest word is looked at


@dataclass(frozen=True, kw_only=True)
class WordPredictionSettings(ObjectiveSettings):
    """Word prediction has no settings of its own."""

    name: Literal["word-prediction"] = "word-prediction"


class WordPredictionTask(Task):
    """Which words a caption has, from its image: the bag-of-words baseline of CLIP's Figure 2."""

    def __init__(self, model: ImageModel, encoding: Encoding, settings: WordPredictionSettings) -> None:
        self.head = of_kind(model.text, WordPredictor, settings.name, 'text = { word_loss = "softmax" }')
        self.images, self.encoding = ImageEncoder(model, encoding), encoding
        super().__init__(model, {"image": self.images})

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the image tower's features, (len(rows), dim)."""
        return self.images.encode(batch, rows)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the distinct words of those rows' texts, (len(rows), context), -1 for none."""
        return distinct_words(self.head.words.rows_of(self.encoding.tokens(batch, rows)))

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the count is that of the rows whose text has words."""
        objective = word_detection if self.head.word_loss == "sigmoid" else word_prediction
        return objective(left, self.head.table, self.head.bias, right)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count those of the first 128 images whose likeliest word is in their text."""
        best = (left[:_GUESSED] @ self.head.table.T + self.head.bias).argmax(dim=1, keepdim=True)
        return (best == right[:_GUESSED]).any(dim=1).sum(), len(best)


def _first_loss(_: WordPredictionSettings, __: int, architecture: Architecture) -> float | None:
    text = architecture.text
    if not isinstance(text, architectures.WordPredictor):
        return None
    words = guessed_words(text.known, text.vocab_size)
    return math.log(words) if text.word_loss == "softmax" else words * math.log(2)


APPROACH = Approach(
    settings=WordPredictionSettings,
    task=WordPredictionTask,
    evaluations=("zero-shot", "linear-probe", "word-order"),
    right="a word of the text, as the likeliest",
    has_negatives=False,
    first_loss=_first_loss,
)
