"""What every approach shares: pictures that become views, and views that become features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diptych.data.images.augmentations import Drawings, draw_views, is_mirrored
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.patch_dropout import kept_patches
from diptych.tokenizer.mirroring import exchange_sides
from diptych.training.approaches.sides import wide
from diptych.training.optim.mixed_precision import autocast
from diptych.training.parallel import Forward
from diptych.training.settings import Recipe


class PictureTask(ABC):
    """An approach whose image features are taken as they are, that ranks nothing, and needs nothing after an update.

    Each one says what its texts become, and its loss. towers: what goes through chunks and processes; the image tower
    alone when not given.
    """

    needs_captions = True  # or a picture alone is enough
    drops_patches = True  # or it has to look at every patch

    def __init__(
        self,
        model: ImageModel,
        preprocess: Preprocess,
        recipe: Recipe,
        towers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.model = model
        self.towers = towers if towers is not None else {"image": model.visual}
        self.use(self.towers)
        self.augmentation = recipe.augmentation
        self.preprocess = preprocess
        self.precision = recipe.training.precision
        self.patch_dropout = recipe.training.patch_dropout
        if self.patch_dropout and not self.drops_patches:
            raise SettingsError(f"[training] patch_dropout: not for {recipe.objective.name}; set it to 0")
        self.patches = model.architecture.image.patches
        if self.patch_dropout and not self.patches:
            raise SettingsError(
                "[training] patch_dropout: a ResNet has no patches to leave out; set it to 0, or train a ViT"
            )
        device = model.device
        self.mean = torch.tensor(preprocess.mean, device=device)[:, None, None]
        self.std = torch.tensor(preprocess.std, device=device)[:, None, None]

    def use(self, towers: Mapping[str, Forward]) -> None:
        """See `Task`."""
        self._image_tower = towers["image"]

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """What the image tower makes of those rows' views, (len(rows), dim), float32 at least."""
        pixels = self.views(batch.canvas[rows], batch.mirrored[rows], batch.chance[rows])
        inputs = [pixels.to(self.model.dtype)]
        if self.patch_dropout:
            inputs.append(kept_patches(batch.seeds[rows], self.patches, self.patch_dropout))
        with autocast(pixels.device.type, self.precision):
            return wide(self._image_tower(*inputs))

    @abstractmethod
    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """See `Task`."""

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
        return self.pixels(self.seen(canvas, mirrored, chance))

    def seen(self, canvas: Tensor, mirrored: Tensor, chance: Tensor) -> Tensor:
        """Augmented pixels in 0..1, (batch, 3, n, n)."""
        if isinstance(self.augmentation, Drawings):
            return draw_views(canvas, mirrored, chance, self.augmentation, self.preprocess.resolution)
        return canvas.to(torch.float32).div_(255)

    def pixels(self, view: Tensor) -> Tensor:
        """Pixels in 0..1 as the image tower takes them; the same shape."""
        return ((view - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @abstractmethod
    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """See `Task`."""

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Nothing is ranked: the loss is what there is to look at."""
        return torch.zeros((), dtype=torch.long, device=left.device), 0

    def after_step(self) -> dict[str, float]:
        """See `Task`."""
        return {}
