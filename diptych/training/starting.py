"""The model that a run starts from: from scratch, from a checkpoint, or from the image tower of one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from diptych.config import build, plain
from diptych.data.images.transforms import Preprocess
from diptych.data.subsets.labelled import class_names
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.training.approaches.approach import TaughtSettings
from diptych.training.feeding import open_examples
from diptych.training.settings import Recipe
from diptych.training.text_start import start_text
from diptych.weights.resize import at_resolution

_HIDDEN = "text.hidden."  # layers of a projection head that a label head keeps


def with_classes(recipe: Recipe) -> Recipe:
    """Return the recipe with the classes of its label head filled in: its teacher's, or those of its data."""
    architecture = recipe.model.resolve()
    head = architecture.label_head
    if head is None or head.classes:
        return recipe
    if isinstance(recipe.objective, TaughtSettings) and recipe.objective.teacher is not None:
        taught = load(recipe.objective.teacher)[0].architecture.label_head
        if taught is None:
            raise SettingsError(
                f"[objective] teacher {recipe.objective.teacher!r} tells no classes apart; name a model that was "
                "trained with labels"
            )
        classes = taught.classes
    else:
        source, weights = open_examples(recipe.data)
        classes = class_names(source, weights, recipe.data.label_from)
    filled = replace(architecture, text=replace(head, classes=classes))
    return replace(recipe, model=replace(recipe.model, architecture=filled))


def starting_model(recipe: Recipe, say: Callable[[str], None]) -> tuple[ImageModel, Preprocess]:
    """Return the model of `[model]`: by `init`, then its text tower by `text_init`. say: see `_initial_model`."""
    model, preprocess = _initial_model(recipe, say)
    if recipe.model.text_init is not None:
        start_text(model, recipe.model.text_init, say)
    return model, preprocess


def _initial_model(recipe: Recipe, say: Callable[[str], None]) -> tuple[ImageModel, Preprocess]:
    """Return the model of `init`. say: gets a line about what was taken from another model.

    A checkpoint of another resolution is brought to the recipe's, its positions resized. One whose text side is of
    another kind gives its image tower (and to a label head the layers of its projection head that this keeps); a text
    side of the same kind must be the same, except for the classes of a label head.
    """
    architecture = recipe.approach.complete(recipe.model.resolve())
    init = recipe.model.init
    if init == "scratch":
        return build_model(architecture), Preprocess(architecture.image.resolution)
    model, preprocess = load(init, device="cpu")
    resolution = architecture.image.resolution
    if resolution != model.architecture.image.resolution:
        say(f"from {init}: {model.architecture.image.resolution} pixels a side become {resolution}")
        model = at_resolution(model, resolution)
        preprocess = build(Preprocess, {**plain(preprocess), "resolution": resolution}, "resolution")
    if architecture == model.architecture:
        return model, preprocess
    if not _gives_its_tower(model.architecture, architecture):
        raise SettingsError(
            f"[model] init {init!r} has another architecture than the recipe asks for: "
            f"{_differences(plain(model.architecture), plain(architecture))}; set them to those of the checkpoint, or "
            "leave `architecture` out of the recipe, which then takes all of them from it"
        )
    return _with_tower_of(model, architecture, lambda what: say(f"from {init}: {what}")), preprocess


def _differences(found: dict[str, Any], wanted: dict[str, Any], place: str = "") -> str:
    """Name each field that differs, with the checkpoint's value and the recipe's."""
    named = []
    for name in sorted(found.keys() | wanted.keys()):
        has, asks = found.get(name), wanted.get(name)
        if isinstance(has, dict) and isinstance(asks, dict) and has != asks:
            named.append(_differences(has, asks, f"{place}{name}."))
        elif has != asks:
            named.append(f"{place}{name} is {has!r}, the recipe has {asks!r}")
    return "; ".join(named)


def _gives_its_tower(found: Architecture, wanted: Architecture) -> bool:
    images = replace(found, text=wanted.text, logit_bias=wanted.logit_bias, heads=wanted.heads) == wanted
    other = type(found.text) is not type(wanted.text)
    return images and (other or wanted.label_head is not None)


@torch.no_grad()
def _with_tower_of(model: ImageModel, wanted: Architecture, say: Callable[[str], None]) -> ImageModel:
    started = build_model(wanted)
    found, target = model.state_dict(), started.state_dict()
    taken = [name for name in target if name.startswith("visual.")]
    head = wanted.label_head
    kept = [name for name in target if head is not None and name.startswith(_HIDDEN)]
    missing = [name for name in kept if name not in found]
    if missing:
        raise SettingsError(
            f"[model] kept_layers: the model that the run starts from has no {missing[0]!r}; set kept_layers lower, "
            "or start from a model with a deeper projection head"
        )
    for name in (*taken, *kept):
        target[name].copy_(found[name])
    layers = 0 if head is None else head.kept_layers or 0
    say(f"the image tower{f' and {layers} layers of its projection head' if layers else ''}; the rest is new")
    return started
