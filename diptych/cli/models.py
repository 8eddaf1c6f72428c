"""`diptych models`: what `--model` takes."""

import functools
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, say, table
from diptych.wording import count_of

if TYPE_CHECKING:
    from diptych.models.architectures import Architecture


All = Annotated[
    bool,
    Parameter(
        name="--all",
        negative="",
        help="Also those of open_clip's names and tags that Diptych builds, with their zero-shot accuracy on ImageNet.",
    ),
]


def models(*, all_of_them: All = False, as_json: Json = False) -> None:
    """List what can be loaded, with sizes. Files, folders and models of the hub can be loaded as well: name their
    path, or hf-hub:owner/name.
    """
    from diptych.pretrained import available_models
    from diptych.weights.foreign.open_clip_models import ACCURACY_SOURCE

    found = _with_tagged() if all_of_them else [_about(name) for name in available_models()]
    if as_json:
        emit(found)
        return
    header: tuple[str, ...] = ("model", "parameters", "image", "dim", "tokens", "state")
    rows = [_cells(model) for model in found]
    if not all_of_them:
        table(header, rows, right=(1, 2, 3, 4))
        return
    accuracies = [
        "" if model["imagenet_zero_shot"] is None else f"{model['imagenet_zero_shot']:.1%}" for model in found
    ]
    rows = [(*row[:5], accuracy, row[5]) for row, accuracy in zip(rows, accuracies, strict=True)]
    table((*header[:5], "ImageNet", header[5]), rows, right=(1, 2, 3, 4, 5))
    say(f"ImageNet: zero-shot accuracy as published by {ACCURACY_SOURCE}")


def _cells(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["name"],
        count_of(model["parameters"]),
        f"{model['resolution']} px",
        str(model["embed_dim"]),
        str(model["context_length"]),
        model["state"],
    )


def _with_tagged() -> list[dict[str, Any]]:
    """Describe every model that has a name, with accuracies and where they are from; OpenAI's once."""
    from diptych.pretrained import available_models
    from diptych.weights.foreign.open_clip_models import ACCURACY_SOURCE, tagged_models
    from diptych.weights.foreign.published import FILES
    from diptych.weights.named_models import canonical

    tagged = tagged_models()
    by_name = {canonical(name): model for name, model in tagged.items()}
    names = [*available_models(), *(name for name in by_name if name not in FILES)]
    return [
        {
            **_about(name),
            "hub": by_name[name].hub if name in by_name else None,
            "imagenet_zero_shot": by_name[name].imagenet if name in by_name else None,
            "accuracy_source": ACCURACY_SOURCE if name in by_name and by_name[name].imagenet else None,
        }
        for name in names
    ]


def _about(name: str) -> dict[str, Any]:
    architecture = _architecture(name)
    return {
        "name": name,
        "parameters": _parameters(architecture),
        "resolution": architecture.image.resolution,
        "embed_dim": architecture.embed_dim,
        "context_length": architecture.text.context_length,
        "state": _state(name),
    }


@functools.cache
def _parameters(architecture: "Architecture") -> int:
    import torch

    from diptych.models.building import build_model

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(architecture).parameters())


def _architecture(name: str) -> "Architecture":
    from diptych.models.architectures import PUBLISHED
    from diptych.weights.checkpoint import describe
    from diptych.weights.foreign.open_clip_models import tagged_models
    from diptych.weights.named_models import bundled_models

    if name in PUBLISHED:
        return PUBLISHED[name]
    bundled = bundled_models()
    return describe(bundled[name])[0] if name in bundled else tagged_models()[name].architecture


def _state(name: str) -> str:
    from diptych.weights.foreign.hub import is_cached
    from diptych.weights.foreign.published import FILES, cache_folder
    from diptych.weights.named_models import bundled_models, mirror

    if name in bundled_models():
        return "bundled"
    # Hashes are compared when a model is loaded, not here: that takes seconds for a gigabyte.
    here = (name in FILES and (cache_folder() / FILES[name].name).is_file()) or is_cached(mirror(name))
    return "downloaded" if here else "downloads on first use"
