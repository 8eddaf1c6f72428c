"""CLIP: both towers under the contrastive objective (Radford et al. 2021)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diptych.data.augmentations import Drawings, draw_views, is_mirrored
from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.distributed import gather_rows, row_counts, world
from diptych.errors import SettingsError
from diptych.models.bag_of_words import BagOfWords
from diptych.models.clip import CLIP
from diptych.models.nonlinear_head import HeadedTower
from diptych.models.patch_dropout import kept_patches
from diptych.models.text_transformer import TextTransformer
from diptych.models.vision_transformer import VisionTransformer
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.tiled import tiled_infonce
from diptych.tokenizer.mirroring import exchange_sides
from diptych.training.parallel import Forward
from diptych.training.precision import autocast
from diptych.training.settings import Recipe
from diptych.training.tasks.sides import unit

# From this many rows in the global batch on, the matrix of similarities is never whole: 4 million are 16 MB.
_TILED_FROM = 2048
_RANKED = 1024  # rows of a process whose accuracy is looked at


class ClipTask:
    """Contrastive pre-training of both towers."""

    embeds_texts = True
    needs_captions = True  # or a picture alone is enough

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        if self.embeds_texts and not isinstance(model.text, TextTransformer | BagOfWords):
            raise SettingsError(
                f"[objective] {recipe.objective.name}: the model's text side is a {type(model.text).__name__}, which "
                "embeds no texts; set [model.architecture] text = { width = 512, layers = 12 }, or another objective"
            )
        self.model = model
        self.towers: Mapping[str, nn.Module] = {"image": model.visual, "text": model.text}
        if model.image_head is not None and model.text_head is not None:
            self.towers = {
                "image": HeadedTower(model.visual, model.image_head),
                "text": HeadedTower(model.text, model.text_head),
            }
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
        return unit(features)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        with autocast(batch.tokens.device.type, self.precision):
            features = self._text_tower(self.tokens(batch, rows))
        return unit(features)

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
        view = self.seen(canvas, mirrored, chance)
        return ((view - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def seen(self, canvas: Tensor, mirrored: Tensor, chance: Tensor) -> Tensor:
        """Augmented pixels in 0..1, (batch, 3, n, n)."""
        if isinstance(self.augmentation, Drawings):
            return draw_views(canvas, mirrored, chance, self.augmentation, self.preprocess.resolution)
        return canvas.to(torch.float32).div_(255)

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


def is_tiled(rows: int) -> bool:
    """Whether the loss of a global batch of so many rows is worked out in tiles."""
    return rows >= _TILED_FROM
