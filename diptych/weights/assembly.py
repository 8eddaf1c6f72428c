"""Build a model from a file of tensors: check everything against the architecture, then read, then assign.

The model is first built without memory (on PyTorch's `meta` device), so every shape that the file must hold is known
before the first byte of a tensor is read.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diptych import config
from diptych.errors import CheckpointError, SettingsError
from diptych.models.architectures import Architecture
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.weights.tensor_files import Entry, TensorFile

_MOST_LISTED = 10
# No width, vocabulary or side of a CLIP is larger; a product of three such sizes still fits 64 bits.
_LARGEST_SIZE = 1 << 20
_MAY_BE_ZERO = (
    "sound_bands",
    "kept_layers",
    "end_id",
)  # without sounds, without hidden layers, the first token
_LAYERS = ("layers", "decoder_layers", "head_layers", "kept_layers", "convolutions")  # of any text side
# The operations of an initialisation that change the values of a tensor and not its shape.
_VALUES_ONLY = {
    "normal_",
    "uniform_",
    "kaiming_uniform_",
    "xavier_uniform_",
    "mul",
    "div",
    "__rmul__",
    "__truediv__",
}


@dataclass(frozen=True)
class Piece:
    """The stored names of one of Diptych's tensors in another layout, and the conversion between both.

    Several names are stacked along the first dimension (transformers keeps query, key and value apart).
    """

    names: tuple[str, ...]
    transposed: bool = False

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of each stored tensor, from the shape of Diptych's."""
        if self.transposed:
            return shape[::-1]
        return (shape[0] // len(self.names), *shape[1:]) if len(self.names) > 1 else shape

    def join(self, stored: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Return Diptych's tensor, from the stored ones. The reshape serves a scalar stored with the shape [1]."""
        whole = torch.cat(stored) if len(stored) > 1 else stored[0]
        return whole.t().contiguous() if self.transposed else whole.reshape(shape)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Return the stored tensors, from Diptych's."""
        whole = tensor.t() if self.transposed else tensor
        parts = whole.chunk(len(self.names)) if len(self.names) > 1 else (whole,)
        return {name: part.contiguous() for name, part in zip(self.names, parts, strict=True)}


Layout = Callable[[str], Piece]


def own_layout(name: str) -> Piece:
    """Return the name unchanged, for Diptych's own files."""
    return Piece((name,))


def assemble(
    architecture: Architecture,
    source: TensorFile,
    layout: Layout,
    where: str,
    ignored: Collection[str] = (),
) -> ImageModel:
    """Build the model of `architecture` with the tensors of `source`: float32, CPU, evaluation mode.

    layout: gives the stored names of each tensor. ignored: other names that the source may hold.

    Raises `CheckpointError`, before anything is read, with the missing, the unexpected and the misshapen tensors.
    """
    _refuse_absurd_sizes(architecture, len(source.entries), where)
    try:
        model = lay_out(architecture)
    except SettingsError as error:
        raise CheckpointError(f"{where}: the architecture cannot be built: {error}") from None
    wanted = {name: (tuple(value.shape), layout(name)) for name, value in model.state_dict().items()}
    expected = {
        stored: piece.stored_shape(shape) for shape, piece in wanted.values() for stored in piece.names
    }
    found = {name: entry for name, entry in source.entries.items() if name not in ignored}
    check_contents(expected, found, where)
    tensors = {}
    for name, (shape, piece) in wanted.items():
        whole = piece.join([source.read(part) for part in piece.names], shape)
        tensors[name] = _as_float32(whole, name, where)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def lay_out(architecture: Architecture) -> ImageModel:
    """Build a model without memory and without values, for `load_state_dict(..., assign=True)`."""
    with torch.device("meta"), _NoInitialisation():
        return build_model(architecture)


class _NoInitialisation(TorchFunctionMode):
    """Skips the initialisation, which has no effect without memory.

    For some of its steps PyTorch would import its compiler, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        arguments = dict(kwargs or {})
        if func is torch.randn:
            return torch.empty(*args, **arguments)
        if getattr(func, "__name__", "") in _VALUES_ONLY:
            return args[0] if args else arguments["tensor"]
        return func(*args, **arguments)


def heads_unless_default(heads: Any, width: Any) -> Any:
    """Return None for 64 channels per head, as in every published model, so that equal sizes compare equal."""
    return None if isinstance(heads, int) and heads * 64 == width else heads


def check_contents(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Entry], where: str) -> None:
    """Raise one `CheckpointError` that lists the missing, the unexpected and the misshapen, ten of each."""
    both = {name: (entry, expected[name]) for name, entry in found.items() if name in expected}
    problems = [
        _listed("missing", [name for name in expected if name not in found]),
        _listed("unexpected", [name for name in found if name not in expected]),
        _listed(
            "of another shape",
            [
                f"{name} {list(entry.shape)}, expected {list(shape)}"
                for name, (entry, shape) in both.items()
                if not _fits(entry.shape, shape)
            ],
        ),
        _listed(
            "of a type that weights cannot have",
            [f"{name} {entry.dtype}" for name, (entry, _) in both.items() if not _usable(name, entry)],
        ),
    ]
    details = "".join(f"\n  {problem}" for problem in problems if problem)
    if details:
        raise CheckpointError(f"{where}: the tensors do not fit the architecture{details}")


def _as_float32(tensor: Tensor, name: str, where: str) -> Tensor:
    """Convert a floating tensor to float32. Raises `CheckpointError` for NaN or infinity."""
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(torch.float32)
    if not all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor)):
        raise CheckpointError(
            f"{where}: tensor {name!r} holds NaN or infinity (in float32); such a model cannot be used: "
            "take an earlier checkpoint"
        )
    return tensor


def _refuse_absurd_sizes(architecture: Architecture, tensors: int, where: str) -> None:
    # Building a model takes time for every layer, and each layer has tensors: so a file with few tensors must not
    # make Diptych build many layers.
    layers = [architecture.image.layers, *(getattr(architecture.text, name, 0) for name in _LAYERS)]
    total = sum(number for _, number in _integers("layers", layers))
    if total > tensors:
        raise CheckpointError(
            f"{where}: the architecture has {total} layers, but the file only {tensors} tensors; fetch it again"
        )
    for name, size in _integers("", config.plain(architecture)):
        if not (0 < size <= _LARGEST_SIZE or (size == 0 and name in _MAY_BE_ZERO)):
            raise CheckpointError(
                f"{where}: the architecture has a size of {size}; expected 1 to {_LARGEST_SIZE}"
            )


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """Yield every whole number of a table with its name, except the ids of known words."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "known":
                yield from _integers(key, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _integers(name, item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    # Some files store the logit scale, a scalar, with the shape [1].
    return found == expected or (expected == () and found == (1,))


def _usable(name: str, entry: Entry) -> bool:
    # The only integer in a CLIP is batch normalisation's count of batches.
    return entry.dtype.is_floating_point != name.endswith("num_batches_tracked")


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{what} ({len(names)}): {', '.join(names[:_MOST_LISTED])}{more}"
