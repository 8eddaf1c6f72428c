"""Where a model meets an objective. A new approach is one entry in `TASKS`."""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.data.augmentations import Drawings, draw_views
from diptych.data.loader import Batch
from diptych.data.transforms import Preprocess
from diptych.models.clip import CLIP
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.training.settings import Recipe


class Task(Protocol):
    """What the engine asks of an approach: embeddings of a batch, and their loss."""

    @property
    def model(self) -> nn.Module:
        """What is trained and saved."""

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit-length embeddings of both sides, (batch, dim) float32."""

    def loss(self, pairs: Pairs) -> tuple[Tensor, int]:
        """The sum over the local rows, and their number."""

    def after_step(self) -> dict[str, float]:
        """What must hold after an update, and what is worth a place in the log."""


class ClipTask:
    """Contrastive pre-training of both towers."""

    def __init__(self, model: CLIP, preprocess: Preprocess, recipe: Recipe) -> None:
        self.model = model
        self.augmentation = recipe.augmentation
        self.preprocess = preprocess
        self.precision = recipe.training.precision
        device = model.logit_scale.device
        self.mean = torch.tensor(preprocess.mean, device=device)[:, None, None]
        self.std = torch.tensor(preprocess.std, device=device)[:, None, None]

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self.model.logit_scale.device
        pixels = self.views(batch.canvas.to(device), batch.mirrored.to(device), batch.chance.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            image = self.model.encode_image(pixels)
            text = self.model.encode_text(batch.tokens.to(device))
        # Norms and similarities in float32: bfloat16 has three digits, and the temperature magnifies by 100.
        return F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)

    def views(self, canvas: Tensor, mirrored: Tensor, chance: Tensor) -> Tensor:
        """Augmented and normalised pixels, (batch, 3, n, n)."""
        if isinstance(self.augmentation, Drawings):
            view = draw_views(canvas, mirrored, chance, self.augmentation, self.preprocess.resolution)
        else:
            view = canvas.to(torch.float32).div_(255)
        return ((view - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def loss(self, pairs: Pairs) -> tuple[Tensor, int]:
        return infonce(pairs, self.model.logit_scale.exp())

    def after_step(self) -> dict[str, float]:
        self.model.clamp_logit_scale()
        return {"logit_scale": self.model.logit_scale.exp().item()}


TASKS: dict[str, Callable[[CLIP, Preprocess, Recipe], Task]] = {"clip": ClipTask}
