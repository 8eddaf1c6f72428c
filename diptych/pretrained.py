"""Load a model by its name, file or folder, and save one: `diptych.load` and `diptych.save`."""

import hashlib
import json
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.architectures import Activation
from diptych.models.image_model import ImageModel
from diptych.tokenizer import default_tokenizer
from diptych.weights.checkpoint import MANIFEST, save_checkpoint
from diptych.weights.foreign.plain_files import Facts
from diptych.weights.foreign.published import Progress
from diptych.weights.formats import load_path
from diptych.weights.half_precision import to_half
from diptych.weights.named_models import available_names, canonical, locate, with_tag
from diptych.weights.naming import split_name, with_activation
from diptych.weights.resize import at_resolution

Precision = Literal["float32", "float16", "bfloat16"]

# To be raised if the same weights, preprocessing and tokenizer give other features than before.
FEATURE_VERSION = 1

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_RESULT = "model"  # in the folder of a run

# The hash of the weights that a model in half precision was made from; such a model is for use, not for training.
_hash_before_halving: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
_names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()  # of models that were loaded


def available_models() -> list[str]:
    """Return the names that `load` knows: the nine published models, then what comes with this package.

    Example:
        >>> import diptych
        >>> diptych.available_models()[-2:]
        ['ViT-L/14@336px', 'diptych-mini']
    """
    return available_names()


def load(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | os.PathLike[str] | None = None,
    *,
    pretrained: str | None = None,
    activation: Activation | None = None,
    like: str | os.PathLike[str] | None = None,
    precision: Precision = "float32",
    resolution: int | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> tuple[ImageModel, Preprocess]:
    """Load a model in evaluation mode, with the preprocessing that it was trained with.

    A model that is not on this machine is downloaded on first use; its SHA-256 is verified before it is read, where
    its publisher states one. No file is ever executed.

    A file of weights alone is read with the configuration beside it. A state dict that `torch.save` wrote from a
    model of Diptych describes its model. OpenAI's files and TorchScript archives have "quick_gelu". Any other file
    needs `activation` or `like`; an `AssumedWarning` says what is then assumed.

    Args:
        name: one of `available_models()`; the path of a file (OpenAI's archives, a state dict) or of a folder
            (Diptych, open_clip, transformers; a run's folder stands for the model in it); open_clip's architecture and
            tag, "ViT-B-32/laion2b_s34b_b79k"; or a repository of the hub, "hf-hub:owner/name", with "@revision" for
            one of its versions. "owner/name" is the local folder of that name, else the repository.
        device: where to put the model: "auto" (CUDA, else Apple's GPU, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
            CUDA, else the CPU, when not given, as in the original package.
        jit: only False; it is here for calls that were written for the original package.
        download_root: folder of the downloads; when not given, the user's cache folders of Diptych and of the hub.
        pretrained: a tag of open_clip, where `name` is its architecture: `load("ViT-B-32", pretrained="openai")`.
        activation: "gelu" or "quick_gelu", with which a file of weights was trained; `name` may end in
            `?activation=gelu` as well.
        like: the name of a model of the same architecture; a file of weights then has its sizes, activation and
            preprocessing.
        precision: of the matrix products: "float32", "float16" or "bfloat16". The original package has float16 on CUDA.
        resolution: pixels a side, in place of the model's own; its position embeddings are resized.
        offline: never download; a missing file is an error that says where to get it and where to put it.
        progress: gets (bytes so far, bytes in all) of a download; a bar on the terminal when not given.

    Returns:
        The model, a `CLIP` in most cases; one of another kind, such as a captioner, refuses in words what it cannot do.
        And its preprocessing: called with one image (a path, bytes or a Pillow image) it returns a tensor
        (3, resolution, resolution), float32, normalised.

    Raises:
        CheckpointError: there is no such model, or its file is damaged, incomplete or of an unknown kind.
        DownloadError: the file cannot be fetched.
        SettingsError: an argument is not one of those above, or the device is not here.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> preprocess("images/bicycle.webp").shape
        torch.Size([3, 64, 64])
    """
    if jit:
        raise SettingsError(
            "jit=True: Diptych reads only the weights of a TorchScript archive and never runs its program; "
            "leave out jit, the features are the same"
        )
    if precision not in _DTYPES:
        raise SettingsError(f"unknown precision {precision!r}; {config.nearest(str(precision), _DTYPES)}")
    name = with_tag(os.fspath(name), pretrained)
    place, stated = split_name(with_activation(name, activation))
    chosen = usable_device(device)
    facts = None
    if like is not None:
        model, preprocess = load(like, "cpu", download_root=download_root, offline=offline, progress=progress)
        facts = Facts(model.architecture, preprocess)
    found = locate(place, download_root, offline, lambda known: _shown(known, progress))
    model, preprocess = load_path(model_of_run(found), stated, facts)
    if resolution is not None:
        model = at_resolution(model, resolution)
        preprocess = config.build(
            Preprocess, {**config.plain(preprocess), "resolution": resolution}, "resolution"
        )
    if precision != "float32":
        before = _hash_of_weights(model)
        model = to_half(model, _DTYPES[precision])
        _hash_before_halving[model] = before
    model.preprocessing = config.plain(preprocess)
    _names[model] = full_name(name, activation)
    return model.to(chosen), preprocess


def save(model: ImageModel, preprocess: Preprocess, folder: str | os.PathLike[str]) -> Path:
    """Write a model and its preprocessing as a folder that `load` reads.

    The folder says everything about the model and has the SHA-256 of its weights.

    Args:
        model: a model of any kind that `load` or `train` gives.
        preprocess: what `load` returned beside it.
        folder: where to write. An older model there is replaced; a folder with other files is refused.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder has other files, or weights are NaN or infinite.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> diptych.save(model, preprocess, "my-model")
        PosixPath('my-model')
    """
    return save_checkpoint(folder, model, config.plain(preprocess))


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device that this machine has.

    "auto" is CUDA, else Apple's GPU, else the CPU. None is CUDA, else the CPU, as in the original package.

    Raises:
        SettingsError: this machine has no such device.
    """
    if device is None or device == "auto":
        apple = device == "auto" and torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if apple else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            here.append("mps")
        # PyTorch's own reason is one sentence or a page of its internals.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise SettingsError(
            f"device {str(device)!r} cannot be used on this machine ({reason}); it has: {', '.join(here)}"
        ) from None
    return chosen


def fingerprint(model: ImageModel, preprocess: Preprocess) -> str:
    """Hash everything that changes features to 64 hexadecimal digits, by which an index knows its model.

    Covers the weights, the architecture (pooling included), the preprocessing, the tokenizer and
    `FEATURE_VERSION`. A model that was loaded in half precision has the fingerprint of its float32 twin.
    """
    description = {
        "feature_version": FEATURE_VERSION,
        "weights": _hash_before_halving.get(model) or _hash_of_weights(model),
        "architecture": config.plain(model.architecture),
        "preprocessing": config.plain(preprocess),
        "tokenizer": default_tokenizer().fingerprint,
    }
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def model_of_run(path: Path) -> Path:
    """Return the model in the folder of a run, of training or fine-tuning; any other path unchanged."""
    inside = path / _RESULT
    return inside if not (path / MANIFEST).exists() and (inside / MANIFEST).is_file() else path


def full_name(name: str | os.PathLike[str], activation: str | None = None) -> str:
    """Return the name of a model as an index or a report remembers it: a path is absolute, a run is the model in it.

    Raises:
        SettingsError: no model has that activation, or `name` states another.
    """
    place, stated = split_name(with_activation(name, activation))
    path = model_of_run(Path(place))
    known = place in available_models() or not path.exists()
    return with_activation(canonical(place) if known else str(path.resolve()), stated)


def name_of(model: nn.Module) -> str | None:
    """Return the full name by which a model was loaded; None for a model that was made in another way."""
    return _names.get(model)


@contextmanager
def _shown(name: str, given: Progress | None) -> Iterator[Progress | None]:
    """Yield the given report of a download, or a progress bar on the terminal that appears with the first bytes."""
    if given is not None or not sys.stderr.isatty():
        yield given
        return
    # Here, because importing it takes time and few calls download.
    from rich import console, progress  # noqa: PLC0415

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
    pace = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*columns, *pace, console=console.Console(stderr=True)) as bar:
        task = bar.add_task(f"Downloading {name}", total=None, visible=False)

        def report(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield report


def _hash_of_weights(model: ImageModel) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().view(-1).numpy().data)
    return digest.hexdigest()
