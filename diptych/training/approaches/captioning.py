"""VirTex and the captioning language model: the text is written from the image (Desai and Johnson 2021)."""

import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.models.heads.captioner import Captioner, CellTower, Direction, reversed_texts
from diptych.models.heads.word_masking import mask_words
from diptych.models.image_model import ImageModel
from diptych.objectives.next_word import captioning, masked_words
from diptych.training.approaches.image_views import PictureTask
from diptych.training.approaches.sides import of_kind, wide
from diptych.training.optim.mixed_precision import autocast
from diptych.training.settings import Recipe

_MASKED = 0.15  # of a text's words, in masked language modelling (Devlin et al. 2018)


class CaptioningTask(PictureTask):
    """Captions word by word from the cells of an image: VirTex, its one-directional and its masked sibling.

    With `reads = "forward"` it is the captioning language model of CLIP's Figure 2. The cells of an image travel as one
    row; the decoders belong to no tower, and see all rows of this process at once.
    """

    drops_patches = False

    def __init__(self, model: ImageModel, preprocess: Preprocess, recipe: Recipe) -> None:
        self.captioner = of_kind(
            model.text, Captioner, "captioning", 'text = { decoder_layers = 1, reads = "both" }'
        )
        super().__init__(model, preprocess, recipe, {"image": CellTower(model.visual)})

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """The cells of those rows' images, side by side: (len(rows), cells * embed_dim)."""
        return super().image(batch, rows).flatten(1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Those rows' texts as rows of the vocabulary, and the seed of each: (len(rows), context + 1), int64."""
        words = self.captioner.words.rows_of(self.tokens(batch, rows)).long()
        return torch.cat([words, batch.seeds[rows, None]], dim=1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the number is that of the tokens that are predicted, which both directions share."""
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
        with autocast(left.device.type, self.precision):
            states = captioner(cells, read, direction, hidden)
        states = wide(states)
        if chosen is not None:
            return masked_words(states, table, bias, tokens, chosen)
        return captioning(states, table, bias, read, tokens.argmax(dim=1))
