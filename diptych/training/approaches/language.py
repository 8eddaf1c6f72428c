"""The text tower predicts the next word: beside CLIP's objective, or alone, before it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.language_tower import LanguageTower
from diptych.models.text_transformer import TextTransformer
from diptych.objectives.vocabulary_softmax import log_likelihoods
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind, unit, wide
from diptych.training.optim.mixed_precision import autocast
from diptych.training.parallel import Forward
from diptych.training.settings import Recipe

_REMEDY = "text = { width = 512, layers = 12 }"


class ClipLanguageTask(ClipTask):
    """CLIP, and the text tower as a language model of the captions as an auxiliary objective.

    A text's surprise travels as a column beside its embedding, so that the step stays exact however the batch is cut.
    """

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        tower = of_kind(model.text, TextTransformer, recipe.objective.name, _REMEDY)
        if model.text_head is not None:
            raise SettingsError(
                f"[objective] {recipe.objective.name}: predicts words with a text tower alone; leave "
                "[model.architecture] heads out"
            )
        towers = {"image": model.visual, "text": LanguageTower(tower, log_likelihoods)}
        super().__init__(model, preprocess, recipe, towers)
        self.weight = recipe.objective.language_weight
        self._surprise = 0.0  # of the last batch, for the log

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The unit-length embeddings of those rows' texts, and the mean -log p of their words in the last column."""
        with autocast(batch.tokens.device.type, self.precision):
            found = self._text_tower(self.tokens(batch, rows))
        return torch.cat([unit(found[:, :-1]), wide(found[:, -1:])], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; each text's words count as one, however many there are."""
        total, count = super().loss(left, right[:, :-1].contiguous(), groups)
        surprise = right[:, -1].sum()
        self._surprise = surprise.item() / max(1, count)
        return total + self.weight * surprise, count

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """See `Task`."""
        return super().correct(left, right[:, :-1].contiguous(), groups)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {**super().after_step(), "language_loss": self._surprise}


class LanguageTask(PictureTask):
    """A language model of the captions alone, for a text tower to start from; pictures are not looked at."""

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        tower = of_kind(model.text, TextTransformer, "language", _REMEDY)
        super().__init__(model, preprocess, recipe, {"text": LanguageTower(tower, log_likelihoods)})
        for parameter in (*model.visual.parameters(), model.logit_scale, tower.text_projection):
            parameter.requires_grad_(False)  # or weight decay would wear off what is not trained

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._text_tower = towers["text"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Nothing of the images: (len(rows), 0) int64."""
        return torch.empty(len(rows), 0, dtype=torch.int64, device=batch.canvas.device)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The mean -log p of the words of those rows' texts: (len(rows), 1)."""
        with autocast(batch.tokens.device.type, self.precision):
            return wide(self._text_tower(self.tokens(batch, rows)))[:, -1:]

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; each text's words count as one, however many there are."""
        return right.sum(), len(right)
