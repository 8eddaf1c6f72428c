"""See, Hear, and Read: one encoder for images, words and sounds (Aytar, Vondrick and Torralba 2017)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.distributed import gather_rows, row_counts
from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.architectures import Architecture
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.models.shared_encoder import SharedEncoder, WordsAndSounds
from diptych.objectives.pairs import Pairs
from diptych.objectives.transfer_and_ranking import cosine_ranking, transfer
from diptych.training.approaches.approach import Approach, TaughtSettings
from diptych.training.approaches.contrastive import OF_PAIRS
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder, TextEncoder
from diptych.training.encoding.features import of_kind, unit, wide
from diptych.training.encoding.teacher import Teacher

_REMEDY = "text = { hidden = [256, 256], classes = 48, width = 64 }"


@dataclass(frozen=True, kw_only=True)
class ShreSettings(TaughtSettings):
    """How near pairs are to be, and how much that weighs beside the transfer from the teacher."""

    name: Literal["shre"] = "shre"
    # The cosine by which a pair is to be nearer than others (the paper gives no number).
    margin: float = 0.1
    # The weight of the ranking of each pair of rows in each layer, beside 1 for the transfer from the teacher.
    ranking_weight: float = 0.05


class ShreTask(Task):
    """Every modality learns what a teacher sees in the paired image, and to lie near its pair in each shared layer.

    Images are paired with words and with sounds, and no word with a sound: where there are sounds, an example shows its
    words if its place in the source is even, and else its sound. The shared layers belong to no tower, and see all rows
    of this process at once.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: ShreSettings) -> None:
        self.encoder = of_kind(model.text, SharedEncoder, settings.name, _REMEDY)
        self.images = ImageEncoder(model, encoding)
        self.texts = TextEncoder(WordsAndSounds(self.encoder.words, self.encoder.sounds), encoding)
        super().__init__(model, {"image": self.images, "text": self.texts})
        self.settings = settings
        self.hears = self.encoder.sounds is not None
        self.teacher = _teacher(settings.teacher, self.encoder, model)

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return those rows' images as the shared layers take them, and the teacher's probabilities beside them."""
        views = self.images.views(batch, rows)
        encoded = self.images.run(self.images.normalised(views))
        if self.teacher is None:
            return encoded
        with torch.no_grad():
            features = self.teacher.model.visual.features(self.teacher.pixels(views))
            taught = self.teacher.model.text(features).softmax(dim=1)
        return torch.cat([encoded, taught.to(encoded.dtype)], dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return words and sounds as the shared layers take them, and which is shown: 1 for words, 0 for sounds."""
        sounds = None if batch.sounds is None else batch.sounds[rows]
        if self.hears and sounds is None:
            raise SettingsError(
                "[objective] shre: the data has no sounds, which [model.architecture.text] sound_bands asks for"
            )
        encoded = wide(self.texts.encode(batch, rows, sounds))
        shows_words = batch.rows[rows, None] % 2 == 0 if self.hears else torch.ones_like(rows[:, None])
        return torch.cat([encoded, shows_words.to(encoded.dtype)], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        width = self.model.architecture.embed_dim
        margin, ranking_weight = self.settings.margin, self.settings.ranking_weight
        shows_words = right[:, -1].detach() > 0.5
        image = self.encoder.layers(left[:, :width])
        other = {"words": (self.encoder.layers(right[:, :width]), shows_words)}
        if self.hears:
            other["sounds"] = (self.encoder.layers(right[:, width : 2 * width]), ~shows_words)
        total = left.new_zeros(())
        for layers, present in other.values():
            everywhere = gather_rows(present.to(torch.int64), row_counts(len(left), left.device)) > 0
            for mine, theirs in zip(image[:-1], layers[:-1], strict=True):
                pairs = Pairs.gathered(unit(mine), unit(theirs), groups)
                total = total + ranking_weight * cosine_ranking(pairs, margin, everywhere)[0]
            if self.teacher is not None:
                total = total + transfer(layers[-1], left[:, width:].detach(), present)[0]
        if self.teacher is not None:
            total = total + transfer(image[-1], left[:, width:].detach())[0]
        return total, len(left)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count those of the images shown with words that rank right words of this process first."""
        width = self.model.architecture.embed_dim
        shown = right[:, -1] > 0.5
        images, words = (unit(self.encoder.represent(side[shown, :width])) for side in (left, right))
        if not len(images):
            return torch.zeros((), dtype=torch.long, device=left.device), 0
        best = (images @ words.T).argmax(dim=1)
        return (groups[shown][best] == groups[shown]).sum(), len(images)


def _teacher(place: str | None, encoder: SharedEncoder, student: ImageModel) -> Teacher | None:
    if place is None:
        return None
    teacher = Teacher(place, "shre", student)
    head = of_kind(teacher.model.text, LabelHead, "shre: the teacher", "text = { classes = [] }")
    classes = int(encoder.shared[-1].out_features)  # type: ignore[arg-type]
    if len(head.classes) != classes:
        raise SettingsError(
            f"[objective] teacher {place!r} has {len(head.classes)} classes; set [model.architecture.text] "
            f"classes = {len(head.classes)}, not {classes}"
        )
    return teacher


def _first_loss(settings: ShreSettings, batch_size: int, architecture: Architecture) -> float | None:
    """Return the loss of equal similarities: the margin for every other row, at each layer and in both directions."""
    text = architecture.text
    if settings.teacher is not None or not isinstance(text, architectures.SharedEncoder):
        return None
    shown = [batch_size] if not text.sound_bands else [batch_size - batch_size // 2, batch_size // 2]
    ranked = sum(count * (count - 1) for count in shown) / batch_size
    return settings.ranking_weight * len(text.hidden) * 2 * ranked * settings.margin


APPROACH = Approach(
    settings=ShreSettings,
    task=ShreTask,
    evaluations=OF_PAIRS,
    right="the words of an image, among those of a process",
    has_negatives=True,
    drops_patches=False,
    first_loss=_first_loss,
)
