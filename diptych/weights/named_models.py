"""Find the files of a model by its name: bundled, published by OpenAI, by open_clip, or on the hub.

A file or folder of that name wins over the hub. A name whose first part is a folder here is a path.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from diptych import config
from diptych.errors import CheckpointError, DownloadError
from diptych.weights.checkpoint import MANIFEST
from diptych.weights.foreign import hub, published
from diptych.weights.foreign.open_clip_models import (
    OPENAI_TAG,
    is_architecture,
    open_clip_spelling,
    tagged_model,
    tagged_models,
)
from diptych.weights.foreign.published import Progress

Shown = Callable[[str], AbstractContextManager[Progress | None]]  # the report of one model's download

_WEIGHTS_FOLDER = Path(__file__).parent
# The ends of a path that cannot be meant for a repository.
_FILE_ENDS = (".bin", ".ckpt", ".json", ".pt", ".pth", ".safetensors", ".toml")


def bundled_models() -> dict[str, Path]:
    """Return the models that come with this package, by name."""
    return {folder.parent.name: folder.parent for folder in sorted(_WEIGHTS_FOLDER.glob(f"*/{MANIFEST}"))}


def available_names() -> list[str]:
    """Return the names that need no table: the nine published models, then what is bundled."""
    return [*published.FILES, *bundled_models()]


def with_tag(architecture: str, pretrained: str | None) -> str:
    """Return open_clip's two names of a model as one; `architecture` itself without a tag."""
    return architecture if pretrained is None else _named(tagged_model(architecture, pretrained).name)


def canonical(name: str) -> str:
    """Return the one spelling of a name, which no folder of any place can be taken for.

    That is OpenAI's own for its nine models, `architecture/tag` for open_clip's, and `hf-hub:owner/name` for the hub's.
    Paths, and names without a model, stay unchanged.

    Raises `CheckpointError` for a malformed name, and for an architecture of open_clip with an unknown tag.
    """
    if name in available_names() or (not name.startswith(hub.PREFIX) and _is_path(name)):
        return name
    first, _, rest = name.partition("/")
    if rest and is_architecture(first):
        return _named(tagged_model(first, rest).name)
    # A misspelt "ViT-B/23" is not a repository of the owner "ViT-B".
    families = {known.partition("/")[0] for known in published.FILES}
    place = None if first in families else hub.hub_name(name)
    return name if place is None else str(place)


def mirror(name: str) -> hub.HubName:
    """Return the repository of one of OpenAI's nine models, or of a name of open_clip with its tag."""
    architecture, _, tag = (f"{name}/{OPENAI_TAG}" if name in published.FILES else name).rpartition("/")
    return hub.HubName(tagged_model(architecture, tag).hub)


def repository(name: str) -> hub.HubName | None:
    """Return the repository of the hub that a name means; None for a path and for OpenAI's and bundled models.

    Raises `CheckpointError` as `canonical` does.
    """
    name = canonical(name)
    if name.startswith(hub.PREFIX):
        return hub.hub_name(name)
    return mirror(name) if name in tagged_models() and not _is_path(name) else None


def locate(name: str, cache: str | os.PathLike[str] | None, offline: bool, shown: Shown) -> Path:
    """Return the file or folder of a model, which is downloaded where it is not on this machine.

    cache: in place of the folders for downloads.

    Raises `CheckpointError` for a name without a model, and `DownloadError` if it cannot be fetched.
    """
    bundled = bundled_models()
    name = canonical(name)
    if name in bundled:
        return bundled[name]
    if name in published.FILES:
        with shown(name) as report:
            return _published(name, cache, offline, report)
    place = repository(name)
    if place is not None:
        with shown(name) as report:
            return hub.fetch(place, cache=cache, offline=offline, progress=report)
    path = Path(name)
    if not path.exists():
        hint = f"; a model of the hub is {hub.PREFIX}owner/name" if "/" in name else ""
        raise CheckpointError(
            f"{name}: neither a file, nor a folder, nor the name of a model; "
            f"{config.nearest(name, available_names())}{hint}"
        )
    _warn_if_on_the_hub(path, name, cache)
    return path


def _published(
    name: str, folder: str | os.PathLike[str] | None, offline: bool, report: Progress | None
) -> Path:
    """Return one of OpenAI's nine: from this machine, from the hub's mirror, and last from OpenAI's address."""
    try:
        return published.fetch(name, folder=folder, offline=True)
    except DownloadError as error:
        absent = error
    try:
        return hub.fetch(mirror(name), cache=folder, offline=offline, progress=report)
    except DownloadError as error:
        refused = error
    if offline or hub.is_offline():
        raise absent
    try:
        return published.fetch(name, folder=folder, progress=report)
    except DownloadError as error:
        raise DownloadError(f"{error}. Before that, its mirror: {refused}") from None


def _named(tagged: str) -> str:
    """Return OpenAI's name for a model of OpenAI, else the name itself."""
    ours = (name for name in published.FILES if tagged == f"{open_clip_spelling(name)}/{OPENAI_TAG}")
    return next(ours, tagged)


def _is_path(name: str) -> bool:
    path = Path(name)
    return path.exists() or name.endswith(_FILE_ENDS) or (len(path.parts) > 1 and path.parent.is_dir())


def _warn_if_on_the_hub(path: Path, name: str, cache: str | os.PathLike[str] | None) -> None:
    """Say that a local folder was read where the client's cache has a repository of the same name."""
    place = None if path.is_absolute() else hub.hub_name(name)
    if place is not None and hub.is_cached(place, cache):
        warnings.warn(
            f"{name}: the folder of that name here was read; the hub's model is {hub.PREFIX}{name}",
            hub.HubWarning,
            stacklevel=2,
        )
