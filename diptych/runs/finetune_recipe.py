"""A recipe for fine-tuning, from the size of the data and of the model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diptych.data.images.augmentations import Augmentation, CentreCrop, Drawings, RandomCrop
from diptych.data.subsets.labelled import LabelFrom
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.prompts import templates_for
from diptych.runs.finetune_data import DataSummary
from diptych.runs.finetune_figures import HELD_OUT_TASK
from diptych.training.approaches.approach import ObjectiveSettings
from diptych.training.methods import FinetuneMethod, FinetuneSettings, objective_of
from diptych.training.optim.optimizer_settings import AdamWSettings
from diptych.training.saving.layout import HELD_OUT
from diptych.training.settings import (
    OBJECTIVES,
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    Recipe,
    ScheduleSettings,
    TrainingSettings,
)

KEPT = "sample:test"  # drawings by a designer that no model of ours has seen: what is not to be lost

# Views of each image, by the number of images: from here on, so many. Fewer images need more looks at each, and a
# held-out part ends the run where they stop helping.
_VIEWS = ((0, 60), (100, 40), (1_000, 15), (10_000, 6), (100_000, 2))
_FEW = 5  # images a class below which a classifier begins with words
_MANY = 100  # images a class from which on the towers learn, too
_UNEVEN = 3.0  # examples of the largest class over those of the smallest
_EVALUATIONS = 6  # in a run, besides the last one
_PATIENCE = 3
# WiSE-FT's and FLYP's rate for a ViT-B of 86 million weights; smaller models take larger steps, as they did in their
# own training (Kaplan et al. 2020 and others find a fall with size); never beyond what fine-tuned diptych-mini without
# loss.
_RATE, _WEIGHTS, _MOST = 3e-5, 86e6, 3e-4
_RATES = {"head": 1e-2, "lora": 1e-3, "lit": 1e-3}


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """The options of `finetune`, which has a description of each; everything else follows from the data."""

    data: str
    model: str
    method: FinetuneMethod | None = None
    head: Literal["zero-shot", "probe", "zero"] | None = None
    alpha: float | Literal["best"] | None = None
    several: bool = False
    keep: Sequence[str] = (KEPT,)
    shift: Sequence[str] = ()
    labels_file: str | Path | None = None
    label_from: LabelFrom = "label"
    group_by: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    seed: int = 0


def recipe_for(
    asked: FinetuneRequest, found: DataSummary, weights: int, classes: LabelSet | None = None
) -> Recipe:
    """Return the recipe of a request.

    found: what is in the data. weights: parameters of the image tower of the model that the run starts from. classes:
    the words and templates of `asked.labels_file`.
    """
    method = asked.method or method_for(found)
    share = _share_held_out(found)
    left = max(2, round(found.images * (1 - share)))
    batch = _batch_size(left, method)
    steps = max(10, _views(left) * left // batch)
    every = max(1, steps // _EVALUATIONS)
    tasks = _tasks(asked, found, share)
    best = _best(found) if share else None
    # A handful of images say less of a class than its words do (Radford et al. 2021, figure 6).
    words_first = method == "head" and found.kind == "labels" and _few(found)
    return Recipe(
        model=ModelSettings(init=asked.model),
        data=_data(asked, found, share, left),
        augmentation=_augmentation(found, method),
        objective=_objective(method, found),
        optimizer=AdamWSettings(
            learning_rate=learning_rate(method, weights),
            weight_decay=0.1,
            betas=(0.9, 0.999),
            epsilon=1e-8,
            clip_norm=1.0,
        ),
        schedule=ScheduleSettings(warmup_steps=max(1, steps // 10)),
        training=TrainingSettings(batch_size=batch, steps=steps, seed=asked.seed),
        checkpoint=CheckpointSettings(),
        evaluation=EvaluationSettings(
            every_steps=every if tasks else None,
            best=best,
            patience=_PATIENCE if best is not None else None,
            tasks=tasks,
        ),
        finetune=FinetuneSettings(
            method=method,
            head=asked.head or ("zero-shot" if words_first else None),
            alpha=asked.alpha,
            words={} if classes is None else dict(zip(classes.names, classes.phrases, strict=True)),
            templates=(classes and classes.templates) or templates_for(asked.model),
            several=asked.several,
        ),
    )


def _data(asked: FinetuneRequest, found: DataSummary, share: float, left: int) -> DataSettings:
    """Return the `[data]` settings. share: the part held out, 0..1. left: the number of images to train on."""
    columns = asked.columns
    return DataSettings(
        train=asked.data,
        image_column=columns.get("image_column"),
        caption_column=columns.get("caption_column"),
        label_column=columns.get("label_column"),
        delimiter=columns.get("delimiter"),
        image_root=columns.get("image_root"),
        label_from=asked.label_from,
        validation=share,
        group_by=asked.group_by,
        balance=0.5 if found.imbalance > _UNEVEN and found.kind == "labels" else 0.0,
        cache=left <= 20_000,
        most_bad=0.5,  # what cannot be read was told beforehand
    )


def _objective(method: FinetuneMethod, found: DataSummary) -> ObjectiveSettings:
    name = objective_of(method, labels=found.kind != "pairs")
    return OBJECTIVES[name](name=name)


def method_for(found: DataSummary) -> FinetuneMethod:
    """Return head for labels, lp-ft for many images a class, contrastive for pairs.

    Up to a hundred images a class a probe learned as much as `lp-ft`, which came next, and it forgets nothing:
    docs/results/finetuning.md.
    """
    if found.kind == "pairs":
        return "contrastive"
    return "lp-ft" if found.images >= _MANY * len(found.classes) else "head"


def _few(found: DataSummary) -> bool:
    return found.images < _FEW * len(found.classes)


def learning_rate(method: FinetuneMethod, weights: int) -> float:
    """Return the peak learning rate. weights: parameters of the image tower."""
    if method in _RATES:
        return _RATES[method]
    return float(f"{min(_MOST, _RATE * math.sqrt(_WEIGHTS / max(1, weights))):.2g}")


def _share_held_out(found: DataSummary) -> float:
    if found.kind == "labels" and max(found.counts.values()) < 2:
        return 0.0
    if found.images < 4:
        return 0.0
    return 0.2 if found.images < 5_000 else 0.1


def _views(images: int) -> int:
    return next(views for least, views in reversed(_VIEWS) if images >= least)


def _batch_size(images: int, method: FinetuneMethod) -> int:
    """Return a power of two that leaves an epoch enough steps; more if the other pairs of a batch are negatives."""
    couples = method in ("flyp", "lit", "contrastive")
    most = 256 if couples else 128
    part = images // (2 if couples else 4)
    return max(2, min(most, 1 << max(1, part.bit_length() - 1)))


def _augmentation(found: DataSummary, method: FinetuneMethod) -> Augmentation:
    if method in ("head", "lit"):
        return CentreCrop()  # whose features are computed once
    if found.transparent:
        return Drawings(rotation=8.0, shear=4.0, mirror=0.0, hue=0.02, grey=0.05, outline=0.05, erase=0.1)
    return RandomCrop()


def _tasks(asked: FinetuneRequest, found: DataSummary, share: float) -> tuple[dict[str, Any], ...]:
    kind = "retrieval" if found.kind == "pairs" else "labels"
    label_from = "caption" if asked.label_from == "caption" and kind == "labels" else "label"
    tasks = []
    if share:
        tasks.append({"name": HELD_OUT_TASK, "task": kind, "data": HELD_OUT, "label_from": label_from})
    for name, places in (("shift", asked.shift), ("kept", asked.keep)):
        for number, place in enumerate(places):
            captioned = name == "kept" and place.startswith(("sample:", "scenes:"))
            tasks.append(
                {
                    "name": name if len(places) == 1 else f"{name}_{number + 1}",
                    "task": kind if name == "shift" else "zero-shot",
                    "data": place,
                    "label_from": "caption" if captioned else label_from,
                }
            )
    return tuple(tasks)


def _best(found: DataSummary) -> str:
    if found.kind == "pairs":
        return "held_out_text_to_image_r1"
    if found.kind == "several":
        return "held_out_map11"
    return "held_out_mean_per_class" if found.imbalance > _UNEVEN else "held_out_top1"
