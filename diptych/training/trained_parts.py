"""Which parts of a model a method of fine-tuning trains."""

from torch import nn

from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.models.layers.batch_statistics import batch_norms
from diptych.models.layers.low_rank import LowRankUpdate
from diptych.training.methods import FinetuneSettings, objective_of
from diptych.training.settings import Recipe

# By method: the parts whose weights change, where labels are learned; and where texts are.
_OF_LABELS = {
    "head": ("classifier",),
    "full": ("visual", "image_head", "classifier"),
    "lp-ft": ("visual", "image_head", "classifier"),
    "wise-ft": ("visual", "image_head", "classifier"),
    "lora": ("low_rank", "classifier"),
}
_OF_TEXTS = {
    "flyp": ("visual", "text", "image_head", "text_head", "scales"),
    "contrastive": ("visual", "text", "image_head", "text_head", "scales"),
    "lit": ("text", "text_head", "scales"),
    "lora": ("low_rank", "scales"),
}


def choose_trained(model: ImageModel, recipe: Recipe) -> None:
    """Freeze what the recipe's method leaves alone; nothing where the recipe does not fine-tune.

    A tower without a single trained weight stays in evaluation mode, and batch norms do unless they are to be trained.

    Raises:
        SettingsError: the method does not go with the recipe's objective, or cannot be shared as it asks.
    """
    settings = recipe.finetune
    if settings is None:
        return
    method, objective = settings.method, recipe.objective.name
    allowed = [
        objective_of(method, labels=labels)
        for labels, table in ((True, _OF_LABELS), (False, _OF_TEXTS))
        if method in table
    ]
    if objective not in allowed:
        raise SettingsError(
            f"[finetune] method {method!r} has no objective {objective!r}; set [objective] name = "
            f"{' or '.join(map(repr, allowed))}"
        )
    parts = (_OF_LABELS if recipe.approach.trains_classifier else _OF_TEXTS)[method]
    if method == "lora" and recipe.training.distributed == "fsdp":
        raise SettingsError(
            '[finetune] lora: its weights are not sharded; set [training] distributed = "ddp"'
        )
    model.requires_grad_(False)
    for part in parts:
        for module in _modules(model, part):
            module.requires_grad_(True)
    if "scales" in parts:
        model.logit_scale.requires_grad_(True)
        if model.logit_bias is not None:
            model.logit_bias.requires_grad_(True)
    model.frozen_parts = _frozen_parts(model, settings)


def _modules(model: ImageModel, part: str) -> list[nn.Module]:
    if part == "low_rank":
        return [module for module in model.modules() if isinstance(module, LowRankUpdate)]
    module = getattr(model, part, None)
    return [module] if isinstance(module, nn.Module) else []


def _frozen_parts(model: ImageModel, settings: FinetuneSettings) -> tuple[nn.Module, ...]:
    towers = [
        tower
        for tower in (model.visual, model.text)
        if not any(value.requires_grad for value in tower.parameters())
    ]
    return (*towers, *(batch_norms(model) if settings.batch_norms == "fixed" else []))
