"""The text tower predicts the next word: beside CLIP's objective, or alone, before it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.models.language_tower import LanguageTower
from diptych.models.text_transformer import TextTransformer
from diptych.objectives.vocabulary_softmax import log_likelihoods
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.contrastive import MATCHED, OF_PAIRS, ClipTask
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, TextEncoder
from diptych.training.encoding.features import guessed_words, of_kind, unit, wide

_REMEDY = "text = { width = 512, layers = 12 }"


@dataclass(frozen=True, kw_only=True)
class LanguageSettings(ObjectiveSettings):
    """A language model has no settings of its own."""

    name: Literal["language"] = "language"


@dataclass(frozen=True, kw_only=True)
class ClipLanguageSettings(ObjectiveSettings):
    """How much the language model weighs beside CLIP."""

    name: Literal["clip-language"] = "clip-language"
    # The weight of the text tower's next-word loss, beside 1 for CLIP's.
    language_weight: float = 0.5


class ClipLanguageTask(ClipTask):
    """CLIP, and the text tower as a language model of the captions as an auxiliary objective.

    A text's surprise travels as a column beside its embedding, so that the step stays exact however the batch is cut.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: ClipLanguageSettings) -> None:
        tower = of_kind(model.text, TextTransformer, settings.name, _REMEDY)
        if model.text_head is not None:
            raise SettingsError(
                f"[objective] {settings.name}: predicts words with a text tower alone; leave "
                "[model.architecture] heads out"
            )
        super().__init__(model, encoding, settings, LanguageTower(tower, log_likelihoods))
        self.weight = settings.language_weight
        self._surprise = 0.0  # of the last batch, for the log

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the unit-length embeddings of those rows' texts; the last column is the mean -log p of their words."""
        found = self.texts.encode(batch, rows)
        return torch.cat([unit(found[:, :-1]), wide(found[:, -1:])], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; each text's words count as one, however many there are."""
        total, count = super().loss(left, right[:, :-1].contiguous(), groups)
        surprise = right[:, -1].sum()
        self._surprise = surprise.item() / max(1, count)
        return total + self.weight * surprise, count

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """See `ClipTask`."""
        return super().correct(left, right[:, :-1].contiguous(), groups)

    def after_step(self) -> dict[str, float]:
        """See `ClipTask`; the log gets the language model's loss, too."""
        return {**super().after_step(), "language_loss": self._surprise}


class LanguageTask(Task):
    """A language model of the captions alone, for a text tower to start from; images are not looked at."""

    def __init__(self, model: ImageModel, encoding: Encoding, settings: LanguageSettings) -> None:
        tower = of_kind(model.text, TextTransformer, settings.name, _REMEDY)
        self.texts = TextEncoder(LanguageTower(tower, log_likelihoods), encoding)
        super().__init__(model, {"text": self.texts})
        projection = (value for name, value in tower.named_parameters() if name.startswith("text_projection"))
        for parameter in (*model.visual.parameters(), model.logit_scale, *projection):
            parameter.requires_grad_(False)  # or weight decay would wear off what is not trained

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return nothing of the images: (len(rows), 0) int64."""
        return torch.empty(len(rows), 0, dtype=torch.int64, device=batch.canvas.device)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the mean -log p of the words of those rows' texts: (len(rows), 1)."""
        return wide(self.texts.encode(batch, rows)[:, -1:])

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; each text's words count as one, however many there are."""
        return right.sum(), len(right)


def _loss_of_words(architecture: Architecture) -> float | None:
    text = architecture.text_transformer
    return None if text is None else math.log(guessed_words(text.known, text.vocab_size))


def _loss_beside_clip(
    settings: ClipLanguageSettings, batch_size: int, architecture: Architecture
) -> float | None:
    words = _loss_of_words(architecture)
    return None if words is None else math.log(batch_size) + settings.language_weight * words


BESIDE_CLIP = Approach(
    settings=ClipLanguageSettings,
    task=ClipLanguageTask,
    evaluations=OF_PAIRS,
    right=MATCHED,
    has_negatives=True,
    first_loss=_loss_beside_clip,
)
ALONE = Approach(
    settings=LanguageSettings,
    task=LanguageTask,
    evaluations=(),
    right=None,
    has_negatives=False,
    drops_patches=False,
    first_loss=lambda _, __, architecture: _loss_of_words(architecture),
)
