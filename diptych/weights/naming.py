"""How a model is named where there is room for one string: a place, and the activation of a plain file after it.

`epoch_9.pt?activation=gelu` is what `load("epoch_9.pt", activation="gelu")` and `--model epoch_9.pt --activation gelu`
mean. Recipes and the manifests of search indexes keep that string.
"""

import os
from typing import cast, get_args

from diptych import config
from diptych.errors import SettingsError
from diptych.models.architectures import Activation

DEFAULT_MODEL = "diptych-mini"  # the bundled model
_OPTION = "?activation="
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def with_activation(name: str | os.PathLike[str], activation: str | None) -> str:
    """Return the name of a model with its activation stated; `name` itself without one.

    Raises `SettingsError` for an activation that no model has, and where `name` states another.
    """
    place, stated = split_name(name)
    if activation is None:
        return os.fspath(name)
    if stated not in (None, activation):
        raise SettingsError(
            f"{name}: states the activation {stated!r}, not {activation!r}; leave one of them out"
        )
    return f"{place}{_OPTION}{_checked(activation, place)}"


def split_name(name: str | os.PathLike[str]) -> tuple[str, Activation | None]:
    """Return the place and the activation that a name states. A path that exists stands for itself.

    Raises `SettingsError` for an activation that no model has.
    """
    text = os.fspath(name)
    place, found, activation = text.rpartition(_OPTION)
    if not found or os.path.exists(text):
        return text, None
    return place, _checked(activation, text)


def _checked(activation: str, where: str) -> Activation:
    if activation not in ACTIVATIONS:
        raise SettingsError(f"{where}: activation {activation!r}; {config.nearest(activation, ACTIVATIONS)}")
    return cast(Activation, activation)
