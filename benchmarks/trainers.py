"""One optimizer step, as open_clip's training script takes it and as Diptych's engine does."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from captions import captions
from peers import import_open_clip, open_clip_model
from torch import Tensor, nn

from diptych.data.batch import Batch
from diptych.data.images.augmentations import CentreCrop, random_table
from diptych.data.images.transforms import CLIP_MEAN, CLIP_STD, Preprocess
from diptych.models.architectures import Architecture
from diptych.models.building import build_model
from diptych.models.layers.blocks import compile_blocks
from diptych.tokenizer import tokenize
from diptych.training.optim.mixed_precision import Precision
from diptych.training.optim.optimizer import build_optimizer
from diptych.training.settings import DataSettings, ModelSettings, Recipe, TrainingSettings
from diptych.training.step import training_step
from diptych.training.towers import WHOLE, Chunking

LEARNING_RATE = 1e-5  # what a step costs does not depend on it; small, so that noise trains without overflow
Autocast = Callable[[], AbstractContextManager[object]]


def synthetic_batch(architecture: Architecture, size: int, device: str = "cpu") -> Batch:
    """Noise for pictures, everyday captions, as the loader would hand them over."""
    side = architecture.image.resolution
    random = torch.Generator(device).manual_seed(0)
    canvas = torch.randint(256, (size, 3, side, side), dtype=torch.uint8, device=device, generator=random)
    tokens = tokenize(captions(size), context_length=architecture.text.context_length, truncate=True)
    return Batch(
        canvas=canvas,
        tokens=tokens.to(device),
        groups=torch.arange(size, device=device),
        mirrored=torch.zeros(size, dtype=torch.bool, device=device),
        chance=random_table(0, size).to(device),
        position=0,
        rows=torch.arange(size, device=device),
        seeds=torch.arange(size, device=device),
        first=0,
        global_count=size,
    )


def normalised(canvas: Tensor) -> Tensor:
    """What open_clip's loader makes of uint8 pictures: (batch, 3, side, side) float32."""
    mean, std = (
        torch.tensor(values, device=canvas.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD)
    )
    return (canvas.float() / 255 - mean) / std


class OpenClip:
    """open_clip's model, loss and AdamW, with the defaults and in the order of its `train_one_epoch`.

    Without its data and its log. Every step is timed from pictures that are normalised already, or, where they do
    not fit in memory so, from uint8 ones that are normalised part by part.
    """

    def __init__(
        self,
        architecture: Architecture,
        precision: Literal["float32", "amp_bf16"],
        device: str = "cpu",
        *,
        compiled: bool = False,
    ) -> None:
        self.bare = open_clip_model(architecture).to(device).train()
        self.model: Any = torch.compile(self.bare) if compiled else self.bare
        self.loss = import_open_clip().ClipLoss(cache_labels=True)
        self.autocast = partial(
            torch.autocast, torch.device(device).type, torch.bfloat16, enabled=precision == "amp_bf16"
        )
        parameters = list(self.bare.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [value for value in parameters if value.ndim < 2], "weight_decay": 0.0},
                {"params": [value for value in parameters if value.ndim >= 2], "weight_decay": 0.2},
            ],
            lr=LEARNING_RATE,
            betas=(0.9, 0.98),
            eps=1e-6,
        )

    def step(self, images: Tensor, tokens: Tensor, accumulate: int = 1) -> Tensor:
        """One step on a batch, in `accumulate` parts (its --accum-freq); returns the loss."""
        parts = list(zip(images.chunk(accumulate), tokens.chunk(accumulate), strict=True))
        self.optimizer.zero_grad()
        if accumulate == 1:
            with self.autocast():
                loss: Tensor = self.loss(**self.model(_pixels(images), tokens))
            loss.backward()
        else:
            loss = accumulated_backward(self.model, self.loss, parts, self.autocast)
        self.optimizer.step()
        with torch.no_grad():
            self.bare.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]
        return loss.detach()


def accumulated_backward(
    model: Callable[[Tensor, Tensor], dict[str, Tensor]],
    loss: nn.Module,
    parts: Sequence[tuple[Tensor, Tensor]],
    autocast: Autocast,
) -> Tensor:
    """The gradient as `--accum-freq` of open_clip's training script works it out; returns the last loss.

    All features once without gradients; then, part by part, the loss of the whole batch with this part's features
    computed again. Every one of these losses is a function of the temperature, and their gradients add up.
    """
    names = ("image_features", "text_features")
    cached: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad(), autocast():
        for images, tokens in parts:
            output = model(_pixels(images), tokens)
            for name in names:
                cached[name].append(output[name])
    for number, (images, tokens) in enumerate(parts):
        with autocast():
            output = model(_pixels(images), tokens)
            whole = {
                name: torch.cat([*cached[name][:number], output[name], *cached[name][number + 1 :]])
                for name in names
            }
            total: Tensor = loss(**whole, logit_scale=output["logit_scale"])
        total.backward()
    return total.detach()


class Diptych:
    """Diptych's model, task and optimizer, as the engine makes them from a recipe."""

    def __init__(
        self,
        architecture: Architecture,
        precision: Precision = "bfloat16",
        device: str = "cpu",
        *,
        compiled: bool = False,
    ) -> None:
        self.recipe = recipe = Recipe(
            model=ModelSettings(architecture=architecture),
            data=DataSettings(train="made up"),
            augmentation=CentreCrop(),
            training=TrainingSettings(batch_size=2, steps=1, precision=precision),
        )
        self.model = build_model(architecture).to(device).train()
        self.model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            compile_blocks(self.model)
        preprocess = Preprocess(architecture.image.resolution)
        self.task = recipe.make_task(self.model, preprocess)
        self.optimizer = build_optimizer(self.model, recipe.optimizer)

    def step(self, batch: Batch, chunking: Chunking = WHOLE) -> float:
        """One step on a batch; returns the loss."""
        return training_step(
            self.task,
            self.optimizer,
            batch,
            LEARNING_RATE,
            clip_norm=None,
            group_positives=False,
            chunking=chunking,
        ).loss


def _pixels(images: Tensor) -> Tensor:
    return normalised(images) if images.dtype == torch.uint8 else images
