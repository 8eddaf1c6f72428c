"""Refuse settings that a recipe gives and that its run does not read: silently, they would have no effect."""

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.errors import SettingsError
from diptych.training.settings import Recipe

# The approaches that read a setting of `[objective]`. `positives` is not here: it says something about the data, and a
# recipe with it serves other approaches by `--set objective.name`.
APPROACHES: dict[str, tuple[str, ...]] = {
    "temperature": ("simclr", "convirt", "label-distillation"),
    "image_weight": ("convirt",),
    "label_smoothing": ("labels", "classifier"),
    "label_weight": ("label-distillation",),
    "margin": ("shre",),
    "ranking_weight": ("shre",),
    "language_weight": ("clip-language",),
    "teacher": ("clip-distillation", "label-distillation", "shre"),
    "contrastive_weight": ("clip-distillation",),
    "feature_weight": ("clip-distillation",),
    "affinity_weight": ("clip-distillation",),
    "interactive_weight": ("clip-distillation",),
}
# The optimizers that read a setting of `[optimizer]`; those that are not named here are read by each.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "betas": ("adamw",),
    "epsilon": ("adamw",),
    "moments": ("adamw",),
    "momentum": ("lars",),
    "trust": ("lars",),
}
# The methods that read a setting of `[finetune]`; likewise.
METHODS: dict[str, tuple[str, ...]] = {
    "rank": ("lora",),
    "scale": ("lora",),
    "adapts": ("lora",),
    "head": ("head", "full", "lp-ft", "wise-ft", "lora"),
}
# The approaches that look at texts, and so read how they are sampled.
_WITH_TEXTS = (
    *("clip", "siglip", "clip-language", "lit", "convirt", "clip-distillation", "shre"),
    *("captioning", "word-prediction", "language"),
)


def refuse_unread(given: Mapping[str, Any], recipe: Recipe, where: str) -> None:
    """Raise `SettingsError` for the first setting in `given` that the run of `recipe` does not read.

    given: the values that somebody wrote, in a file or by assignments; defaults are not among them.
    """
    for name, of, chosen, readers in _unread(given, recipe):
        known = ", ".join(readers)
        raise SettingsError(
            f"{where} [{name.partition('.')[0]}]: {name} is not read by {of} {chosen!r}, so it would change nothing; "
            f"it belongs to {known}: leave it out, or choose one of these"
        )


def without_unread(values: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a copy of a recipe's plain values without the settings that its run does not read."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for name, *_ in _unread(values, recipe):
        section, _, key = name.partition(".")
        del result[section][key]
    return result


def _unread(given: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """The setting's name, what would read it, which of these was chosen, and those that read it."""
    approaches = _approaches(recipe)
    for key in given.get("objective", {}):
        readers = APPROACHES.get(key)
        if readers is not None and not set(readers) & set(approaches):
            yield f"objective.{key}", "the approach", " or ".join(approaches), readers
    for key in given.get("optimizer", {}):
        readers = OPTIMIZERS.get(key)
        if readers is not None and recipe.optimizer.name not in readers:
            yield f"optimizer.{key}", "the optimizer", recipe.optimizer.name, readers
    if recipe.finetune is not None:
        for key in given.get("finetune", {}):
            readers = METHODS.get(key)
            if readers is not None and recipe.finetune.method not in readers:
                yield f"finetune.{key}", "the method", recipe.finetune.method, readers
    if "text" in given.get("data", {}) and not set(approaches) & set(_WITH_TEXTS):
        yield "data.text", "the approach", " or ".join(approaches), _WITH_TEXTS


def _approaches(recipe: Recipe) -> tuple[str, ...]:
    """The approaches that a recipe may come to: fine-tuning chooses by its method and by what the data have."""
    if recipe.finetune is None:
        return (recipe.objective.name,)
    if recipe.finetune.method == "lit":
        return ("lit",)
    return ("clip",) if recipe.finetune.method in ("flyp", "contrastive") else ("classifier", "clip")
