"""Prepare what fine-tuning starts from: the model with the classifier or updates of a method, as a checkpoint."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.data.subsets.labelled import sample_per_class
from diptych.errors import SettingsError
from diptych.models.architectures import Classifier, LowRank
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.runs.classifier_heads import Head, probe_head, zero_shot_head
from diptych.runs.finetune_data import DataSummary, examine
from diptych.training.approaches import APPROACHES
from diptych.training.approaches.approach import ObjectiveSettings
from diptych.training.feeding import open_examples, split_of
from diptych.training.methods import LABEL_METHODS, FinetuneSettings, objective_of
from diptych.training.saving.layout import RECIPE, START, refuse_other_files
from diptych.training.settings import OBJECTIVES, Recipe
from diptych.weights.checkpoint import load_checkpoint, read_manifest, save_checkpoint, verify_checkpoint


def prepare(recipe: Recipe, out: Path, say: Callable[[str], None]) -> Recipe:
    """Write the start into `out`, unless the run has begun, and return the recipe that the engine runs.

    It says everything that the data and the start decide: the objective, the architecture, the words of the classes.

    Raises:
        SettingsError: the method does not go with the data; `out` holds other files, or a run of another model.
        DataError: see `examine`. CheckpointError: what is in the place of the start is none.
    """
    settings = recipe.finetune
    assert settings is not None
    started = _is_started(out, recipe.model.init)
    source, weights = open_examples(recipe.data, say)
    found = examine(
        source, label_from=recipe.data.label_from, several=settings.several, method=settings.method
    )
    if found.kind == "pairs" and settings.method in LABEL_METHODS:
        raise SettingsError(
            f"[finetune] method {settings.method!r} learns from labels, and {source.name} has captions alone; use "
            "contrastive, lit or lora, or give labels"
        )
    objective = objective_of(settings.method, labels=found.kind != "pairs")
    words = _words(settings, found) if found.kind == "labels" else {}
    folder = out / START
    if not started:
        if recipe.data.labels_per_class is not None:
            weights = sample_per_class(
                source, weights, recipe.data.label_from, recipe.data.labels_per_class, recipe.training.seed
            )
        model, preprocess = load(recipe.model.init, device="cpu")
        positions = np.flatnonzero(weights).tolist()
        say(f"{recipe.model.init}: preparing the start of {settings.method}")
        beginning = _with_classifier(
            model,
            settings,
            found,
            objective,
            words=words,
            probe=lambda: probe_head(
                model,
                preprocess,
                source,
                positions,
                found.classes,
                label_from=recipe.data.label_from,
                several=settings.several,
                seed=recipe.training.seed,
                groups=split_of(recipe.data, source).groups if recipe.data.validation else None,
            ),
        )
        _write(folder, beginning, preprocess, recipe, settings)
    architecture = load_checkpoint(folder)[0].architecture
    return replace(
        recipe,
        model=replace(recipe.model, init=str(folder), architecture=architecture, text_init=None),
        objective=_settings_of(objective, recipe.objective),
        finetune=replace(settings, words=words),
    )


def _settings_of(objective: str, given: ObjectiveSettings) -> ObjectiveSettings:
    """Return the settings of the approach that the data call for.

    Raises:
        SettingsError: the recipe sets what only another approach of its method reads.
    """
    if given.name == objective:
        return given
    chosen = OBJECTIVES[objective](name=objective, positives=given.positives)
    lost = plain(given).items() - plain(type(given)(name=given.name)).items() - plain(chosen).items()
    if lost:
        raise SettingsError(
            f"[objective] {min(lost)[0]}: the data call for the approach {objective!r}, which does not read it; leave "
            "it out"
        )
    return chosen


def _words(settings: FinetuneSettings, found: DataSummary) -> dict[str, tuple[str, ...]]:
    unknown = sorted(settings.words.keys() - set(found.classes))
    if unknown:
        raise SettingsError(
            f"[finetune] words: {unknown[0]!r} is not one of the {len(found.classes)} classes of the data; correct its "
            "name, or leave it out"
        )
    return {name: settings.words.get(name, (name.replace("_", " "),)) for name in found.classes}


def _with_classifier(
    model: ImageModel,
    settings: FinetuneSettings,
    found: DataSummary,
    objective: str,
    *,
    words: dict[str, tuple[str, ...]],
    probe: Callable[[], Head],
) -> ImageModel:
    """Return the model with a classifier if there are classes, and with low-rank updates for `lora`."""
    size, head = None, None
    if found.kind != "pairs":
        begins = settings.begins if APPROACHES[objective].trains_classifier else "zero-shot"
        reads = "embedding" if begins == "zero-shot" else "features"
        size = Classifier(classes=found.classes, reads=reads, several=settings.several)  # type: ignore[arg-type]
        if begins == "zero-shot":
            head = zero_shot_head(model, found.classes, words, settings.templates)
        elif begins == "probe":
            head = probe()
    low_rank = None
    if settings.method == "lora":
        low_rank = LowRank(rank=settings.rank, scale=settings.scale, towers=settings.adapts)
    torch.manual_seed(0)  # of the updates' first factors
    started = build_model(replace(model.architecture, classifier=size, low_rank=low_rank))
    copy_weights(model, started)
    if head is not None:
        assert started.classifier is not None
        with torch.no_grad():
            started.classifier.weight.copy_(head[0])
            started.classifier.bias.copy_(head[1])
    return started


@torch.no_grad()
def copy_weights(model: ImageModel, target: ImageModel) -> None:
    """Copy everything but the classifier into a model that may have low-rank updates beside its weights."""
    state = target.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("classifier."):
            continue
        owner, _, last = name.rpartition(".")
        adapted = f"{owner}.parametrizations.{last}.original"
        state[adapted if adapted in state else name].copy_(value)


def _write(
    folder: Path, model: ImageModel, preprocess: Preprocess, recipe: Recipe, settings: FinetuneSettings
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {
        "what": "made ready for fine-tuning",
        "from": recipe.model.init,
        "method": settings.method,
    }
    save_checkpoint(folder, model.eval(), plain(preprocess), history=[entry])


def _is_started(run: Path, init: str) -> bool:
    """Return whether the run has begun from its start, which then stays.

    Raises:
        SettingsError: it began from another model than `init`. CheckpointError: its start is damaged.
    """
    if not (run / RECIPE).exists():
        refuse_other_files(run)
        if (run / START).exists():  # of a run that did not begin; the data or the model may be others now
            read_manifest(run / START)
        return False
    before = verify_checkpoint(run / START).history[-1]["from"]
    if before != init and os.path.realpath(before) != os.path.realpath(init):
        raise SettingsError(
            f"{run}: the run was started from {before}, not from {init}; resume with --model {before}, or name another "
            "folder with --out"
        )
    return True
