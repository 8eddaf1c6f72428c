"""Name a model in one string: its place, followed by the activation of a plain file.

`epoch_9.pt?activation=gelu` means the same as `load("epoch_9.pt", activation="gelu")` and as `--model epoch_9.pt
--activation gelu`. Recipes and the manifests of search indexes keep that string.
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

    Raises `SettingsError` for an unknown activation, and if `name` states another one.
    """
    place, stated = split_name(name)
    if activation is None:
        return os.fspath(name)
    if stated not in (None, activation):
        raise SettingsError(
            f"{name}: states the activation {stated!r}, not {activation!r}; leave out one of them"
        )
    return f"{place}{_OPTION}{_check_activation(activation, place)}"


def split_name(name: str | os.PathLike[str]) -> tuple[str, Activation | None]:
    """Split a name into the place and the activation. A path that exists is returned as it is.

    Raises `SettingsError` for an unknown activation.
    """
    text = os.fspath(name)
    place, found, activation = text.rpartition(_OPTION)
    if not found or os.path.exists(text):
        return text, None
    return place, _check_activation(activation, text)


def _check_activation(activation: str, where: str) -> Activation:
    if activation not in ACTIVATIONS:
        raise SettingsError(
            f"{where}: unknown activation {activation!r}; {config.nearest(activation, ACTIVATIONS)}"
        )
    return cast(Activation, activation)
