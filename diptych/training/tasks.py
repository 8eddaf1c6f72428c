"""Where a model meets an objective. A new approach is one entry in `TASKS`."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.data.augmentations import Drawings, draw_views
from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.distributed import gather_rows, row_counts, world
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.models.patch_dropout import kept_patches
from diptych.models.vision_transformer import VisionTransformer
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.tiled import tiled_infonce, tiled_sigmoid
from diptych.training.parallel import Forward
from diptych.training.precision import autocast
from diptych.training.settings import Recipe

# From this many rows in the global batch on, the matrix of similarities is never whole: 4 million are 16 MB.
_TILED_FROM = 2048
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

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
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
        return _unit(features)

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""
        with autocast(batch.tokens.device.type, self.precision):
            features = self._text_tower(batch.tokens[rows])
        return _unit(features)

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


def is_tiled(rows: int) -> bool:
    """Whether the loss of a global batch of so many rows is worked out in tiles."""
    return rows >= _TILED_FROM


def _unit(features: Tensor) -> Tensor:
    # Norms and similarities in float32: bfloat16 has three digits, and the temperature magnifies by 100.
    wide = features if features.dtype == torch.float64 else features.float()
    return F.normalize(wide, dim=-1)


TASKS: dict[str, Callable[[CLIP, Preprocess, Recipe], Task]] = {"clip": ClipTask, "siglip": SiglipTask}
