"""VirTex and the captioning language model: the text is written from the image (Desai and Johnson 2021)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.captioner import Captioner, CellTower, Direction, reversed_texts
from diptych.models.clip import CLIP
from diptych.models.word_masking import mask_words
from diptych.objectives.captioning import captioning, masked_words
from diptych.training.parallel import Forward
from diptych.training.precision import autocast
from diptych.training.settings import Recipe
from diptych.training.tasks.clip import ClipTask
from diptych.training.tasks.sides import text_side, wide

_MASKED = 0.15  # of a text's words, in masked language modelling (Devlin et al. 2018)


class CaptioningTask(ClipTask):
    """Captions word by word from the cells of an image: VirTex, its one-directional and its masked sibling.

    With `reads = "forward"` it is the captioning language model of CLIP's Figure 2. The cells of an image travel as one
    row; the decoders belong to no tower, and see all rows of this process at once.
    """

    embeds_texts = False

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.captioner = text_side(
            model, Captioner, "captioning", 'text = { decoder_layers = 1, reads = "both" }'
        )
        if self.patch_dropout:
            raise SettingsError("[training] patch_dropout: a captioner looks at every patch; set it to 0")
        self.towers = {"image": CellTower(model.visual)}
        self.use(self.towers)

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower = towers["image"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """The cells of those rows' images, side by side: (len(rows), cells * embed_dim)."""
        pixels = self.views(batch.canvas[rows], batch.mirrored[rows], batch.chance[rows])
        with autocast(pixels.device.type, self.precision):
            return wide(self._image_tower(pixels.to(self.model.dtype))).flatten(1)

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

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Nothing is ranked: the loss is what there is to look at."""
        return torch.zeros((), dtype=torch.long, device=left.device), 0

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}
