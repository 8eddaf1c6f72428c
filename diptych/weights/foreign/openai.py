"""Read OpenAI's layout: the published archives, and plain state dicts with the same names.

Such a file does not describe its model. The sizes follow from the shapes, with 64 channels per head as in every
published model. `plain_files` finds the facts that shapes cannot show.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture, ModifiedResNet, TextTransformer, VisionTransformer
from diptych.weights.assembly import Layout, Piece
from diptych.weights.foreign.archive import Archive, ArchivedTensors, StoredTensor, flatten
from diptych.weights.tensor_files import Entry, TensorFile

# Besides the weights, the published archives keep three numbers and the causal masks, which all follow from the sizes.
_DERIVED = re.compile(r"(input_resolution|context_length|vocab_size)$|.*\.attn_mask$")
# The keys under which training code keeps a state dict, and the prefixes that wrappers of the model add.
_WRAPPINGS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_CHANNELS_PER_HEAD = 64


def openai_layout(text_prefix: str) -> Layout:
    """Return the layout of OpenAI's names: Diptych's, except for the prefix of the text tower."""

    def piece(name: str) -> Piece:
        return Piece((text_prefix + name.removeprefix("text."),) if name.startswith("text.") else (name,))

    return piece


def derived_names(names: Iterable[str]) -> list[str]:
    """Return the names that such a file may hold and that a model does not need."""
    return [name for name in names if _DERIVED.match(name)]


def archived_state(path: Path) -> TensorFile:
    """Open the tensors of an archive: of a TorchScript module, or of a state dict, wrapped or not."""
    archive = Archive(path)
    content = archive.content if archive.is_torchscript else _unwrap(archive.content, path)
    return ArchivedTensors(archive, _without_prefixes(flatten(content, str(path))))


def infer_architecture(entries: Mapping[str, Entry], text_prefix: str, where: str) -> Architecture:
    """Infer the sizes of a model in OpenAI's layout. Raises `CheckpointError` if the shapes are not a CLIP's."""
    if any(name.startswith("vision_model.") for name in entries):
        raise CheckpointError(
            f"{where}: has the names of a transformers model, which needs its config.json beside it: "
            "load the whole folder"
        )

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in entries:
            raise CheckpointError(
                f"{where}: holds no tensor {name!r}, so it is not a CLIP in OpenAI's layout; "
                f"it holds {len(entries)} tensors, the first: {', '.join(list(entries)[:5]) or 'none'}. A state dict "
                "of another model of Diptych, such as diptych-mini, needs the sizes of that model: "
                'diptych.load(FILE, like="diptych-mini"); diptych.save keeps them with the weights'
            )
        found = entries[name].shape
        if len(found) != dimensions or 0 in found:
            raise CheckpointError(
                f"{where}: {name} has the shape {list(found)}; expected {dimensions} dimensions"
            )
        return found

    def grid(name: str) -> int:
        rows = shape(name, 2)[0] - 1
        side = math.isqrt(rows)
        if side * side != rows:
            raise CheckpointError(
                f"{where}: {name} has {rows + 1} rows; expected one more than a square number"
            )
        return side

    text_width, embed_dim = shape(f"{text_prefix}text_projection", 2)
    text = TextTransformer(
        width=text_width,
        layers=_count(entries, rf"{re.escape(text_prefix)}transformer\.resblocks\.(\d+)\."),
        context_length=shape(f"{text_prefix}positional_embedding", 2)[0],
        vocab_size=shape(f"{text_prefix}token_embedding.weight", 2)[0],
    )
    if "visual.proj" in entries:
        width, _, patch, _ = shape("visual.conv1.weight", 4)
        image: VisionTransformer | ModifiedResNet = VisionTransformer(
            resolution=grid("visual.positional_embedding") * patch,
            patch=patch,
            width=width,
            layers=_count(entries, r"visual\.transformer\.resblocks\.(\d+)\."),
        )
    else:
        width = shape("visual.layer1.0.conv1.weight", 4)[0]
        stages = [_count(entries, rf"visual\.layer{number}\.(\d+)\.") for number in (1, 2, 3, 4)]
        image = ModifiedResNet(
            resolution=grid("visual.attnpool.positional_embedding") * 32,
            layers=(stages[0], stages[1], stages[2], stages[3]),
            width=width,
        )
    for tower, count in (("text", text_width), ("image", image.feature_width)):
        _check_heads(tower, count, where)
    return Architecture(embed_dim=embed_dim, image=image, text=text)


def _check_heads(tower: str, width: int, where: str) -> None:
    if width % _CHANNELS_PER_HEAD:
        raise CheckpointError(
            f"{where}: the {tower} tower has a width of {width}; expected a multiple of "
            f"{_CHANNELS_PER_HEAD}, from which the number of heads follows in this layout"
        )


def _count(entries: Mapping[str, Entry], pattern: str) -> int:
    numbers = {match[1] for name in entries if (match := re.match(pattern, name))}
    return len(numbers)


def _unwrap(content: Any, path: Path) -> dict[Any, Any]:
    """Return the state dict inside a saved object."""
    for _ in range(2):
        wrapping = next((name for name in _WRAPPINGS if isinstance(content, dict) and name in content), None)
        if wrapping is not None:
            content = content[wrapping]
    if not isinstance(content, dict) or not any(
        isinstance(value, StoredTensor) for value in content.values()
    ):
        found = f"one with {sorted(map(str, content))[:5]}" if isinstance(content, dict) else "something else"
        raise CheckpointError(
            f"{path}: expected a dictionary of names and tensors, or one that keeps it under "
            f"{' or '.join(map(repr, _WRAPPINGS))}; found {found}"
        )
    return content


def _without_prefixes(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    prefix = next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None)
    if prefix is None:
        return tensors
    return _without_prefixes({name.removeprefix(prefix): stored for name, stored in tensors.items()})
