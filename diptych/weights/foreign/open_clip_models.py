"""Models by open_clip's names: an architecture and a tag, such as `ViT-B-32/laion2b_s34b_b79k`.

`open_clip_models.toml` has the facts and their sources.
"""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from diptych import config
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture

ACCURACY_SOURCE = "github.com/mlfoundations/open_clip, docs/openclip_results.csv at f862f86"
OPENAI_TAG = "openai"

_TABLE = Path(__file__).with_suffix(".toml")
_QUICK_GELU = "-quickgelu"  # open_clip names an architecture twice where its models have both activations


@dataclass(frozen=True)
class TaggedModel:
    """One set of weights that open_clip publishes."""

    name: str  # architecture/tag
    hub: str  # owner/name of its repository
    architecture: Architecture
    imagenet: float | None  # zero-shot accuracy, where `ACCURACY_SOURCE` has it


@functools.cache
def tagged_models() -> dict[str, TaggedModel]:
    """Return the table, by name."""
    found = {}
    for architecture, sizes in tomllib.loads(_TABLE.read_text("utf-8")).items():
        rows = sizes.pop("models")
        for row in rows:
            activation = "quick_gelu" if row.get("quick_gelu", False) else "gelu"
            name = f"{architecture}/{row['tag']}"
            values = {**sizes, "activation": activation}
            built = config.build(Architecture, values, f"{_TABLE.name} [{architecture}]")
            found[name] = TaggedModel(name, row["hub"], built, row.get("imagenet"))
    return found


def is_architecture(name: str) -> bool:
    """Return whether `name` is an architecture of open_clip that Diptych builds."""
    return any(known.partition("/")[0] == open_clip_spelling(name) for known in tagged_models())


def tagged_model(architecture: str, tag: str) -> TaggedModel:
    """Return the model of an architecture and a tag, in any of open_clip's spellings.

    Raises `CheckpointError`, with the architecture's tags, for a tag that is not in the table.
    """
    name = f"{open_clip_spelling(architecture)}/{tag.lower().replace('-', '_')}"
    known = tagged_models()
    found = known.get(name)
    quick = architecture.endswith(_QUICK_GELU)
    if found is None:
        tags = [
            other.partition("/")[2]
            for other in known
            if other.startswith(f"{open_clip_spelling(architecture)}/")
        ]
        raise CheckpointError(
            f"{architecture}/{tag}: {architecture} has no weights with the tag {tag!r} that Diptych knows; "
            f"{config.nearest(tag, tags)}; `diptych models --all` lists all"
        )
    if quick and found.architecture.activation != "quick_gelu":
        raise CheckpointError(
            f"{architecture}/{tag}: these weights were trained with GELU, and {architecture} has QuickGELU; "
            f"expected {found.name}"
        )
    return found


def open_clip_spelling(architecture: str) -> str:
    """Return open_clip's name of an architecture, without the mark of its activation: `ViT-B/32` is `ViT-B-32`."""
    return architecture.replace("/", "-").replace("@336px", "-336").removesuffix(_QUICK_GELU)
