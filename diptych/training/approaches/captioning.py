"""VirTex and the captioning language model: the text is written from the image (Desai and Johnson 2021)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.models import architectures
from diptych.models.architectures import Architecture
from diptych.models.heads.captioner import Captioner, CellTower, Direction, reversed_texts
from diptych.models.heads.word_masking import mask_words
from diptych.models.image_model import ImageModel
from diptych.objectives.next_word import captioning, masked_words
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding, ImageEncoder
from diptych.training.encoding.features import guessed_words, of_kind, wide
from diptych.training.optim.mixed_precision import autocast

_MASKED = 0.15  # of a text's words, in masked language modelling (Devlin et al. 2018)


@dataclass(frozen=True, kw_only=True)
class CaptioningSettings(ObjectiveSettings):
    """Captioning has no settings of its own: `[model.architecture] text` says how captions are read."""

    name: Literal["captioning"] = "captioning"


class CaptioningTask(Task):
    """Captions word by word from the cells of an image: VirTex, its one-directional and its masked sibling.

    With `reads = "forward"` it is the captioning language model of CLIP's Figure 2. The cells of an image travel as one
    row; the decoders belong to no tower, and see all rows of this process at once.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, settings: CaptioningSettings) -> None:
        self.captioner = of_kind(
            model.text, Captioner, settings.name, 'text = { decoder_layers = 1, reads = "both" }'
        )
        self.images, self.encoding = ImageEncoder(model, encoding, CellTower(model.visual)), encoding
        super().__init__(model, {"image": self.images})

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return the cells of those rows' images, side by side: (len(rows), cells * embed_dim)."""
        return self.images.encode(batch, rows).flatten(1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return those rows' texts as rows of the vocabulary, and the seed of each: (len(rows), context + 1), int64."""
        words = self.captioner.words.rows_of(self.encoding.tokens(batch, rows)).long()
        return torch.cat([words, batch.seeds[rows, None]], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the count is that of the tokens that are predicted, which both directions share."""
        total, count = left.new_zeros(()), 0
        for direction in self.captioner.directions:
            found, count = self._loss_of(direction, left, right[:, :-1], right[:, -1])
            total = total + found
        return total, count

    def _loss_of(
        self, direction: Direction, left: Tensor, tokens: Tensor, seeds: Tensor
    ) -> tuple[Tensor, int]:
        captioner = self.captioner
        # The table of the words is in the precision of the weights; what meets it is brought to it.
        table, bias = captioner.token_embedding.weight, captioner.output_bias
        cells = left.reshape(len(left), -1, table.shape[1])
        read, hidden, chosen = tokens, None, None
        if direction == "around":
            read, hidden, chosen = mask_words(seeds, tokens, _MASKED, captioner.words.rows)
        elif direction == "backward":
            read = reversed_texts(tokens)
        with autocast(left.device.type, self.encoding.precision):
            states = captioner(cells, read, direction, hidden)
        states = wide(states)
        if chosen is not None:
            return masked_words(states, table, bias, tokens, chosen)
        return captioning(states, table, bias, read, tokens.argmax(dim=1))


def _first_loss(_: CaptioningSettings, __: int, architecture: Architecture) -> float | None:
    text = architecture.text
    if not isinstance(text, architectures.Captioner):
        return None
    directions = 2 if text.reads == "both" else 1
    return directions * math.log(guessed_words(text.known, text.vocab_size))


APPROACH = Approach(
    settings=CaptioningSettings,
    task=CaptioningTask,
    evaluations=("zero-shot", "linear-probe", "word-order"),
    right=None,
    has_negatives=False,
    drops_patches=False,
    first_loss=_first_loss,
)
