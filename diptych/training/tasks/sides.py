"""What tasks ask of a model, and what they make of its features."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models.clip import CLIP

_Side = TypeVar("_Side", bound=nn.Module)


def text_side(model: CLIP, kind: type[_Side], objective: str, remedy: str) -> _Side:
    """The model's text side, which has to be of a kind. remedy: what the recipe says where it is."""
    if not isinstance(model.text, kind):
        raise SettingsError(
            f"[objective] {objective}: the model's text side is a {type(model.text).__name__}; set "
            f"[model.architecture] {remedy}"
        )
    return model.text


def unit(features: Tensor) -> Tensor:
    """Their directions, in float32 at least; where there is none, zeros, and no gradient.

    A text without words is the zero vector to a new bag of words: its direction would change without bounds.
    """
    # Norms and similarities in float32: bfloat16 has three digits, and the temperature magnifies by 100.
    found = wide(features)
    return F.normalize(found.masked_fill((found == 0).all(dim=-1, keepdim=True), 0.0), dim=-1)


def wide(features: Tensor) -> Tensor:
    """In float32 at least."""
    return features if features.dtype == torch.float64 else features.float()
