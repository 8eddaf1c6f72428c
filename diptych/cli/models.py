"""`diptych models`: what `--model` takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import diptych
from diptych.cli.options import Json
from diptych.cli.output import emit, table
from diptych.wording import count_of

if TYPE_CHECKING:
    from diptych.models.architectures import Architecture


def models(*, as_json: Json = False) -> None:
    """List what can be loaded, with sizes. Files and folders can be loaded as well: name their path."""
    from diptych.pretrained import available_models

    found = [_about(name) for name in available_models()]
    if as_json:
        emit(found)
        return
    rows = [
        (
            model["name"],
            count_of(model["parameters"]),
            f"{model['resolution']} px",
            str(model["embed_dim"]),
            str(model["context_length"]),
            model["state"],
        )
        for model in found
    ]
    table(("model", "parameters", "image", "dim", "tokens", "state"), rows, right=(1, 2, 3, 4))


def _about(name: str) -> dict[str, Any]:
    import torch

    from diptych.models.architectures import PUBLISHED
    from diptych.models.building import build_model

    architecture = PUBLISHED[name] if name in PUBLISHED else _bundled_architecture(name)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_model(architecture).parameters())
    return {
        "name": name,
        "parameters": parameters,
        "resolution": architecture.image.resolution,
        "embed_dim": architecture.embed_dim,
        "context_length": architecture.text.context_length,
        "state": _state(name),
    }


def _bundled_architecture(name: str) -> "Architecture":
    from diptych import config
    from diptych.models.architectures import Architecture
    from diptych.weights.checkpoint import read_manifest

    folder = Path(diptych.__file__).parent / "weights" / name
    return config.build(Architecture, read_manifest(folder).architecture, str(folder))


def _state(name: str) -> str:
    from diptych.weights.foreign.published import FILES, cache_folder

    if name not in FILES:
        return "bundled"
    # Its hash is compared when it is loaded, not here: that takes seconds for a gigabyte.
    return "downloaded" if (cache_folder() / FILES[name].name).is_file() else "downloads on first use"
