"""See, Hear, and Read: one encoder for images, words and sounds (Aytar, Vondrick and Torralba 2017)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.distributed import gather_rows, row_counts
from diptych.errors import SettingsError
from diptych.models.heads.label_head import LabelHead
from diptych.models.image_model import ImageModel
from diptych.models.shared_encoder import SharedEncoder, WordsAndSounds
from diptych.objectives.pairs import Pairs
from diptych.objectives.transfer_and_ranking import cosine_ranking, transfer
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind, unit, wide
from diptych.training.approaches.teacher import Teacher
from diptych.training.optim.mixed_precision import autocast
from diptych.training.parallel import Forward
from diptych.training.settings import Recipe

_REMEDY = "text = { hidden = [256, 256], classes = 48, width = 64 }"


class ShreTask(PictureTask):
    """Every modality learns what a teacher sees in the paired image, and to lie near its pair in each shared layer.

    Images are paired with words and with sounds, and no word with a sound: where there are sounds, an example shows its
    words if its place in the source is even, and else its sound. The shared layers belong to no tower, and see all rows
    of this process at once.
    """

    drops_patches = False

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        self.encoder = of_kind(model.text, SharedEncoder, "shre", _REMEDY)
        words_and_sounds = WordsAndSounds(self.encoder.words, self.encoder.sounds)
        super().__init__(model, preprocess, recipe, {"image": model.visual, "text": words_and_sounds})
        self.margin, self.ranking_weight = recipe.objective.margin, recipe.objective.ranking_weight
        self.hears = self.encoder.sounds is not None
        self.teacher = _teacher(recipe.objective.teacher, self.encoder, model)

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        super().use(towers)
        self._text_tower = towers["text"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Those rows' images as the shared layers take them, and the teacher's probabilities beside them."""
        view = self.seen(batch.canvas[rows], batch.mirrored[rows], batch.chance[rows])
        pixels = self.pixels(view)
        with autocast(pixels.device.type, self.precision):
            encoded = wide(self._image_tower(pixels.to(self.model.dtype)))
        if self.teacher is None:
            return encoded
        with torch.no_grad():
            features = self.teacher.model.visual.features(self.teacher.pixels(view))
            taught = self.teacher.model.text(features).softmax(dim=1)
        return torch.cat([encoded, taught.to(encoded.dtype)], dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Words and sounds as the shared layers take them, and which of the two is shown: 1 for words, 0 for sounds."""
        sounds = None if batch.sounds is None else batch.sounds[rows]
        if self.hears and sounds is None:
            raise SettingsError(
                "[objective] shre: the data has no sounds, which [model.architecture.text] sound_bands asks for"
            )
        with autocast(batch.tokens.device.type, self.precision):
            encoded = wide(self._text_tower(self.tokens(batch, rows), sounds))
        shows_words = batch.rows[rows, None] % 2 == 0 if self.hears else torch.ones_like(rows[:, None])
        return torch.cat([encoded, shows_words.to(encoded.dtype)], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        width = self.model.architecture.embed_dim
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
                total = total + self.ranking_weight * cosine_ranking(pairs, self.margin, everywhere)[0]
            if self.teacher is not None:
                total = total + transfer(layers[-1], left[:, width:].detach(), present)[0]
        if self.teacher is not None:
            total = total + transfer(image[-1], left[:, width:].detach())[0]
        return total, len(left)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the images that are shown with words, those that rank right words of this process first."""
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
