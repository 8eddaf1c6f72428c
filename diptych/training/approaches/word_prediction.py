"""Which words a caption has, from its image (the bag-of-words baseline of CLIP's Figure 2)."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.models.heads.word_predictor import WordPredictor, distinct_words
from diptych.models.image_model import ImageModel
from diptych.objectives.word_set import word_detection, word_prediction
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind
from diptych.training.settings import Recipe

_GUESSED = 128  # rows of a process whose likeliest word is looked at


class WordPredictionTask(PictureTask):
    """Which words a caption has, from its image: the bag-of-words baseline of CLIP's Figure 2."""

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        self.head = of_kind(model.text, WordPredictor, "word-prediction", 'text = { word_loss = "softmax" }')
        super().__init__(model, preprocess, recipe)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The distinct words of those rows' texts, (len(rows), context), -1 for none."""
        return distinct_words(self.head.words.rows_of(self.tokens(batch, rows)))

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the number is that of the rows whose text has words."""
        objective = word_detection if self.head.word_loss == "sigmoid" else word_prediction
        return objective(left, self.head.table, self.head.bias, right)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first 128 images, those whose likeliest word is in their text."""
        best = (left[:_GUESSED] @ self.head.table.T + self.head.bias).argmax(dim=1, keepdim=True)
        return (best == right[:_GUESSED]).any(dim=1).sum(), len(best)
