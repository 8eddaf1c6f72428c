"""From the rows of a batch to what a tower makes of them: images become views, texts become tokens."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from diptych.data.batch import Batch
from diptych.data.images.augmentations import (
    Augmentation,
    CentreCrop,
    Drawings,
    draw_views,
    is_mirrored,
)
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.patch_dropout import kept_patches
from diptych.tokenizer.mirroring import exchange_sides
from diptych.training.encoding.features import wide
from diptych.training.optim.mixed_precision import Precision, autocast
from diptych.training.parallel import Forward


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How both sides of a batch are encoded.

    preprocess: resolution and normalisation of the images. augmentation: what their views are.
    precision: of the towers' arithmetic. patch_dropout: share of an image's patches that is left out, 0..1.
    """

    preprocess: Preprocess
    augmentation: Augmentation
    precision: Precision = "float32"
    patch_dropout: float = 0.0

    @property
    def is_fixed(self) -> bool:
        """Whether an image looks the same every time: nothing about its view is random."""
        return isinstance(self.augmentation, CentreCrop) and not self.patch_dropout

    def tokens(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return ids of those rows' texts, (len(rows), context); in mirrored views left and right are exchanged."""
        tokens = batch.tokens[rows]
        if not isinstance(self.augmentation, Drawings):
            return tokens
        mirrored = is_mirrored(batch.mirrored[rows], batch.chance[rows], self.augmentation)
        return torch.where(mirrored[:, None], exchange_sides(tokens), tokens)


class Encoder(Protocol):
    """What encodes one side of a pair.

    tower: the part of the model. call: what is called in its place where several processes share it.
    """

    tower: nn.Module
    call: Forward


class ImageEncoder:
    """Encode the images of a batch: augment them, normalise them, and call the tower.

    tower: the model's image tower when not given.
    """

    def __init__(self, model: ImageModel, encoding: Encoding, tower: nn.Module | None = None) -> None:
        self._patches = model.architecture.image.patches
        if encoding.patch_dropout and not self._patches:
            raise SettingsError(
                "[training] patch_dropout: a ResNet has no patches to leave out; set it to 0, or train a ViT"
            )
        self.tower: nn.Module = model.visual if tower is None else tower
        self.call: Forward = self.tower
        self._model, self._encoding = model, encoding
        device = model.device
        self._mean = torch.tensor(encoding.preprocess.mean, device=device)[:, None, None]
        self._std = torch.tensor(encoding.preprocess.std, device=device)[:, None, None]

    def encode(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return what the tower makes of those rows' views, (len(rows), dim), float32 at least."""
        pixels = self.normalised(self.views(batch, rows))
        if not self._encoding.patch_dropout:
            return self.run(pixels)
        dropout = self._encoding.patch_dropout
        return self.run(pixels, kept_patches(batch.seeds[rows], self._patches, dropout))

    def views(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return those rows' augmented images, (len(rows), 3, n, n), in 0..1."""
        canvas, augmentation = batch.canvas[rows], self._encoding.augmentation
        if isinstance(augmentation, Drawings):
            resolution = self._encoding.preprocess.resolution
            return draw_views(canvas, batch.mirrored[rows], batch.chance[rows], augmentation, resolution)
        return canvas.to(torch.float32).div_(255)

    def normalised(self, views: Tensor) -> Tensor:
        """Return views in 0..1 as the tower takes them; the same shape."""
        return ((views - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def run(self, pixels: Tensor, *others: Tensor) -> Tensor:
        """Return the tower's features of normalised pixels, float32 at least. others: its further arguments."""
        with autocast(pixels.device.type, self._encoding.precision):
            return wide(self.call(pixels.to(self._model.dtype), *others))


class TextEncoder:
    """Encode the texts of a batch.

    tower: the part of the model that takes their tokens.
    """

    def __init__(self, tower: nn.Module, encoding: Encoding) -> None:
        self.tower = tower
        self.call: Forward = tower
        self._encoding = encoding

    def encode(self, batch: Batch, rows: Tensor, *others: Tensor | None) -> Tensor:
        """Return what the tower makes of those rows' tokens, (len(rows), dim). others: its further arguments."""
        with autocast(batch.tokens.device.type, self._encoding.precision):
            return self.call(self._encoding.tokens(batch, rows), *others)
