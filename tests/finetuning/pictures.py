"""Pictures for the tests of fine-tuning: class folders of noisy colours, and a CLIP small enough for a test."""

from dataclasses import replace
from pathlib import Path

import torch

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, ModifiedResNet, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import save_checkpoint

VIT = VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2)
RESNET = ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=8, heads=4)
TEXT = TextTransformer(width=16, layers=1, heads=2, context_length=16)


def small_clip(image: VisionTransformer | ModifiedResNet = VIT) -> ImageModel:
    """Random weights, the same at every call."""
    torch.manual_seed(0)
    return build_model(Architecture(embed_dim=12, image=image, text=TEXT)).eval()


def saved_clip(folder: Path, image: VisionTransformer | ModifiedResNet = VIT) -> str:
    """`small_clip` as a checkpoint."""
    return str(save_checkpoint(folder, small_clip(image), config.plain(Preprocess(32))))


def recipe(data: Path, init: str, method: str, **finetune: object) -> Recipe:
    """A few steps on class folders."""
    values = {
        "model": {"init": init},
        "data": {"train": str(data), "validation": 0.25, "cache": True, "workers": 0},
        "augmentation": {"name": "none"},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.0},
        "schedule": {"warmup_steps": 1},
        "training": {"steps": 4, "batch_size": 6},
        "evaluation": {
            "every_steps": 2,
            "best": "held_out_top1",
            "tasks": [{"name": "held_out", "task": "labels", "data": "held-out"}],
        },
        "finetune": {"method": method, "alphas": [0.0, 0.5, 1.0], **finetune},
    }
    return config.build(Recipe, values, "test")


def to_the_end(asked: Recipe) -> Recipe:
    """The same without a best: the result is what the last step came to, and never the start."""
    return replace(asked, evaluation=replace(asked.evaluation, best=None))
