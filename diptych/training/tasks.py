"""Where a model meets an objective. A new approach is one entry in `TASKS`."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.data.augmentations import Drawings, draw_views, is_mirrored
from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.data.two_views import TwoViews, random_view, view_chances
from diptych.distributed import gather_rows, row_counts, world
from diptych.errors import SettingsError
from diptych.models.captioner import Captioner, CellTower, Direction, reversed_texts
from diptych.models.clip import CLIP
from diptych.models.patch_dropout import kept_patches
from diptych.models.projection_head import FeatureTower, ProjectionHead
from diptych.models.vision_transformer import VisionTransformer
from diptych.models.word_masking import mask_words
from diptych.models.word_predictor import WordPredictor, distinct_words
from diptych.objectives.captioning import captioning, masked_words
from diptych.objectives.infonce import infonce
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.tiled import tiled_infonce, tiled_sigmoid
from diptych.objectives.word_prediction import word_detection, word_prediction
from diptych.tokenizer.mirroring import exchange_sides
from diptych.training.parallel import Forward
from diptych.training.precision import autocast
from diptych.training.settings import Recipe

# From this many rows in the global batch on, the matrix of similarities is never whole: 4 million are 16 MB.
_TILED_FROM = 2048
_MASKED = 0.15  # of a text's words, in masked language modelling (Devlin et al. 2018)
_GUESSED = 128  # rows of a process whose likeliest word is looked at
_RANKED = 1024  # rows of a process whose accuracy is looked at


class Task(Protocol):
    """What the engine asks of an approach: embeddings of the rows of a batch, and their loss."""

    @property
    def model(self) -> nn.Module:
        """What is trained and saved."""

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """The part of the model that each side of a pair goes through: "image" and, where it has one, "text"."""

    def use(self, towers: Mapping[str, Forward]) -> None:
        """What to call in place of the towers, where several processes share them."""

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Embeddings of those rows' images, (len(rows), dim), unit length, float32 at least."""

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Embeddings of those rows' texts, likewise; or their ids, where texts are predicted and not encoded."""

    def text_order(self, batch: Batch) -> Tensor:
        """The rows, (batch,), in the order in which chunks of texts cost least."""

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """This process's part of the sum over the global batch, and its number of rows.

        left, right: (local, dim), embeddings of this process's images and texts. groups: (local,), or None.
        """

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """How many of this process's answers are right, (), integer, and how many were looked at."""

    def after_step(self) -> dict[str, float]:
        """What must hold after an update, and what is worth a place in the log."""


class ClipTask:
    """Contrastive pre-training of both towers."""

    embeds_texts = True

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        if self.embeds_texts and isinstance(model.text, Captioner | WordPredictor):
            raise SettingsError(
                f"[objective] {recipe.objective.name}: the model's text side is a {type(model.text).__name__}, which "
                "embeds no texts; set [model.architecture] text = { width = 512, layers = 12 }, or another objective"
            )
        self.model = model
        self.towers: Mapping[str, nn.Module] = {"image": model.visual, "text": model.text}
        self.use(self.towers)
        self.augmentation = recipe.augmentation
        self.preprocess = preprocess
        self.precision = recipe.training.precision
        self.patch_dropout = recipe.training.patch_dropout
        if self.patch_dropout and not isinstance(model.visual, VisionTransformer):
            raise SettingsError(
                "[training] patch_dropout: a ResNet has no patches to leave out; set it to 0, or train a ViT"
            )
        device = model.logit_scale.device
        self.mean = torch.tensor(preprocess.mean, device=device)[:, None, None]
        self.std = torch.tensor(preprocess.std, device=device)[:, None, None]

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower, self._text_tower = towers["image"], towers["text"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        pixels = self.views(batch.canvas[rows], batch.mirrored[rows], batch.chance[rows])
        inputs = [pixels.to(self.model.dtype)]
        if self.patch_dropout:
            patches = len(self.model.visual.positional_embedding) - 1  # type: ignore[arg-type]
            inputs.append(kept_patches(batch.seeds[rows], patches, self.patch_dropout))
        with autocast(pixels.device.type, self.precision):
            features = self._image_tower(*inputs)
        return self.normalised(features)

    def normalised(self, features: Tensor) -> Tensor:
        """What the objective sees of an image tower's output: here its direction."""
        return _unit(features)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        with autocast(batch.tokens.device.type, self.precision):
            features = self._text_tower(self.tokens(batch, rows))
        return _unit(features)

    def tokens(self, batch: Batch, rows: Tensor) -> Tensor:
        """Ids of those rows' texts, (len(rows), context); where a view is mirrored, left and right are exchanged."""
        tokens = batch.tokens[rows]
        if not isinstance(self.augmentation, Drawings):
            return tokens
        mirrored = is_mirrored(batch.mirrored[rows], batch.chance[rows], self.augmentation)
        return torch.where(mirrored[:, None], exchange_sides(tokens), tokens)

    def text_order(self, batch: Batch) -> Tensor:
        """Longest last: the tower runs up to the longest text of a chunk."""
        return batch.tokens.argmax(dim=1).argsort(stable=True)

    def views(self, canvas: Tensor, mirrored: Tensor, chance: Tensor) -> Tensor:
        """Augmented and normalised pixels, (batch, 3, n, n)."""
        if isinstance(self.augmentation, Drawings):
            view = draw_views(canvas, mirrored, chance, self.augmentation, self.preprocess.resolution)
        else:
            view = canvas.to(torch.float32).div_(255)
        return ((view - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        scale = self.model.logit_scale.exp()
        if is_tiled(len(left) * world().size):
            return tiled_infonce(left, right, scale, groups)
        return infonce(Pairs.gathered(left, right, groups), scale)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first 1,024 images, those that rank a right text of the global batch first."""
        counts = row_counts(len(left), left.device)
        every_right, every_group = gather_rows(right, counts), gather_rows(groups, counts)
        ranked = left[:_RANKED]
        best = (ranked @ every_right.T).argmax(dim=1)
        return (every_group[best] == groups[:_RANKED]).sum(), len(ranked)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        self.model.clamp_logit_scale()
        return {"logit_scale": self.model.logit_scale.exp().item()}


class SiglipTask(ClipTask):
    """The same towers under SigLIP's sigmoid objective (Zhai et al. 2023)."""

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        if model.logit_bias is None:
            raise SettingsError(
                "[objective] siglip: the model has no bias of its logits; set [model.architecture] "
                "logit_bias = -10.0"
            )
        self.bias = model.logit_bias

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""
        scale = self.model.logit_scale.exp()
        if is_tiled(len(left) * world().size):
            return tiled_sigmoid(left, right, scale, self.bias, groups)
        return sigmoid(Pairs.gathered(left, right, groups), scale, self.bias)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {**super().after_step(), "logit_bias": self.bias.item()}


class CaptioningTask(ClipTask):
    """Captions word by word from the cells of an image: VirTex, its one-directional and its masked sibling.

    With `reads = "forward"` it is the captioning language model of CLIP's Figure 2. The cells of an image travel as one
    row; the decoders belong to no tower, and see all rows of this process at once.
    """

    embeds_texts = False

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.captioner = _text_side(
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
            return _wide(self._image_tower(pixels.to(self.model.dtype))).flatten(1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Ids of those rows' texts, and the seed of each in the last column: (len(rows), context + 1), int64."""
        return torch.cat([self.tokens(batch, rows).long(), batch.seeds[rows, None]], dim=1)

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
            read, hidden, chosen = mask_words(seeds, tokens, _MASKED, captioner.vocab_size)
        elif direction == "backward":
            read = reversed_texts(tokens)
        with autocast(left.device.type, self.precision):
            states = captioner(cells, read, direction, hidden)
        states = _wide(states)
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


class WordPredictionTask(ClipTask):
    """Which words a caption has, from its image: the bag-of-words baseline of CLIP's Figure 2."""

    embeds_texts = False

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.head = _text_side(model, WordPredictor, "word-prediction", 'text = { word_loss = "softmax" }')
        self.towers = {"image": model.visual}
        self.use(self.towers)

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower = towers["image"]

    def normalised(self, features: Tensor) -> Tensor:
        """As they are: a logit may be of any size."""
        return _wide(features)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The distinct words of those rows' texts, (len(rows), context), -1 for none."""
        return distinct_words(self.tokens(batch, rows))

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`; the number is that of the rows whose text has words."""
        objective = word_detection if self.head.word_loss == "sigmoid" else word_prediction
        return objective(left, self.head.table, self.head.bias, right)

    @torch.no_grad()
    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first 128 images, those whose likeliest word is in their text."""
        best = (left[:_GUESSED] @ self.head.table.T + self.head.bias).argmax(dim=1, keepdim=True)
        return (best == right[:_GUESSED]).any(dim=1).sum(), len(best)

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}


class SimclrTask(ClipTask):
    """Two views of each image find each other among the views of all (SimCLR: Chen et al. 2020).

    The tower ends before its projection; both views of an image travel as one row. The head belongs to no tower and
    sees the rows of every process at once, so that its batch norms do not depend on how the batch was cut.
    """

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        super().__init__(model, preprocess, recipe)
        self.head = _text_side(model, ProjectionHead, "simclr", "text = { head_layers = 2 }")
        if not isinstance(recipe.augmentation, TwoViews):
            raise SettingsError(
                '[objective] simclr compares two random views: set [augmentation] name = "two-views"'
            )
        if self.patch_dropout:
            raise SettingsError(
                "[training] patch_dropout: not for simclr, whose views are crops; set it to 0"
            )
        self.two_views = recipe.augmentation
        self.temperature = recipe.objective.temperature
        self.towers = {"image": FeatureTower(model.visual)}
        self.use(self.towers)
        self._projected: tuple[Tensor, Tensor] | None = None  # of the last loss, to count right answers by

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower = towers["image"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """The features h of both views of those rows' images: (len(rows), 2 * width)."""
        both = [
            random_view(
                batch.canvas[rows],
                batch.mirrored[rows],
                view_chances(batch.seeds[rows], view),
                self.two_views,
                self.preprocess.resolution,
            )
            for view in (0, 1)
        ]
        pixels = ((torch.cat(both) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with autocast(pixels.device.type, self.precision):
            features = _wide(self._image_tower(pixels.to(self.model.dtype)))
        return torch.cat(features.chunk(2), dim=1)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """The places of those rows' examples in the source, (len(rows), 1)."""
        return batch.rows[rows, None]

    def text_order(self, batch: Batch) -> Tensor:
        """As they come."""
        return torch.arange(len(batch.rows), device=batch.rows.device)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`. A picture that is in the batch twice is no negative of itself."""
        first, second = _unit(self.head(torch.cat(left.chunk(2, dim=1)))).chunk(2)
        self._projected = first.detach(), second.detach()
        same = right[:, 0] if groups is None else groups
        return nt_xent(Pairs.gathered(first, second, same), self.temperature)

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Of the first 1,024 images, those whose first view has its second nearest among all second views."""
        assert self._projected is not None
        return super().correct(*self._projected, right[:, 0])

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}


_Side = TypeVar("_Side", bound=nn.Module)


def _text_side(model: CLIP, kind: type[_Side], objective: str, remedy: str) -> _Side:
    if not isinstance(model.text, kind):
        raise SettingsError(
            f"[objective] {objective}: the model's text side is a {type(model.text).__name__}; set "
            f"[model.architecture] {remedy}"
        )
    return model.text


def is_tiled(rows: int) -> bool:
    """Whether the loss of a global batch of so many rows is worked out in tiles."""
    return rows >= _TILED_FROM


def _unit(features: Tensor) -> Tensor:
    # Norms and similarities in float32: bfloat16 has three digits, and the temperature magnifies by 100.
    return F.normalize(_wide(features), dim=-1)


def _wide(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


TASKS: dict[str, Callable[[CLIP, Preprocess, Recipe], Task]] = {
    "clip": ClipTask,
    "siglip": SiglipTask,
    "captioning": CaptioningTask,
    "word-prediction": WordPredictionTask,
    "simclr": SimclrTask,
}
