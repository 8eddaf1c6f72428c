"""A text tower that starts from another model's: from a language model's, for example."""

from collections.abc import Callable
from dataclasses import replace

import torch

from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.pretrained import load


@torch.no_grad()
def start_text(model: ImageModel, init: str, say: Callable[[str], None]) -> None:
    """Give `model` the text tower of the checkpoint `init`; its projection too, where it leads into as many dimensions.

    say: gets one line about it.

    Raises:
        SettingsError: either model's text side is no transformer, or theirs are of different sizes.
    """
    other, _ = load(init, device="cpu")
    wanted = model.architecture
    if wanted.text_transformer is None or other.architecture.text_transformer is None:
        raise SettingsError(
            f"[model] text_init {init!r}: needs a text transformer here and there; found a "
            f"{type(model.text).__name__} and a {type(other.text).__name__}"
        )
    found = replace(other.architecture, embed_dim=wanted.embed_dim, image=wanted.image)
    if found.text != wanted.text or found.activation != wanted.activation:
        raise SettingsError(
            f"[model] text_init {init!r} has another text tower than the recipe asks for: {found.text}, "
            f"{found.activation}"
        )
    target, state = model.text.state_dict(), other.text.state_dict()
    taken = [name for name, value in target.items() if value.shape == state[name].shape]
    for name in taken:
        target[name].copy_(state[name])
    rest = "" if len(taken) == len(target) else "; its projection is new"
    say(f"from {init}: the text tower{rest}")
