"""Zero-shot classifiers that are kept on disk: 80,000 prompts are embedded once, not at every look at a model."""

import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diptych.atomic import atomic_write
from diptych.data.images.transforms import Preprocess
from diptych.embed.encode import Vectors
from diptych.evaluation.zero_shot.classification import BuildClassifier, classifier
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint
from diptych.weights.foreign import published

# To be raised when the same model, words and templates would give other weights than before.
_VERSION = 1
_DIGEST_BYTES = 32
# Fewer prompts are embedded in less time than the weights of a model take to hash.
_WORTH_KEEPING = 128


def cache_folder() -> Path:
    """Where classifiers are kept: `$DIPTYCH_CACHE/classifiers`, or beside the models in the user's cache folder."""
    return published.cache_folder().with_name("classifiers")


def builder(preprocess: Preprocess, *, keep: bool) -> BuildClassifier:
    """Return what makes a classifier of a model with this preprocessing; with `keep`, from the cache if it is there."""
    return functools.partial(cached_classifier, preprocess=preprocess) if keep else classifier


def cached_classifier(
    model: ImageModel,
    labels: Sequence[Sequence[str]],
    templates: Sequence[str],
    *,
    preprocess: Preprocess,
    folder: Path | None = None,
) -> Tensor:
    """`classifier`, from `folder` (`cache_folder()` when not given) where it was made before, else made and kept.

    A file's name is the hash of all that the weights depend on: the model's fingerprint, its precision, the
    phrases and the templates in their order, the kind of processor and the version of torch. So what is found is
    equal to the bit to what was computed here, and a change of any of them makes another file. A damaged file is
    made again. A folder that cannot be written keeps nothing, which costs time and nothing else. A classifier of
    few prompts is not kept.
    """
    if len(templates) * sum(len(phrases) for phrases in labels) < _WORTH_KEEPING:
        return classifier(model, labels, templates)
    file = (folder or cache_folder()) / _name(model, preprocess, labels, templates)
    shape = len(labels), model.architecture.embed_dim
    rows = _read(file, shape)
    if rows is None:
        rows = np.ascontiguousarray(classifier(model, labels, templates).numpy().T)
        _write(file, rows)
    return torch.from_numpy(rows).T


def _name(
    model: ImageModel, preprocess: Preprocess, labels: Sequence[Sequence[str]], templates: Sequence[str]
) -> str:
    device = model.device
    described = {
        "version": _VERSION,
        "model": fingerprint(model, preprocess),
        "precision": sorted({str(parameter.dtype) for parameter in model.parameters()}),
        "phrases": [list(phrases) for phrases in labels],
        "templates": list(templates),
        "torch": torch.__version__,
        "processor": _processor(device),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _processor(device: torch.device) -> str:
    """What kind of processor computes: another kind rounds differently."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _read(file: Path, shape: tuple[int, int]) -> Vectors | None:
    """The rows (classes, embed_dim) in a file, or None where there is no such file or it is damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    body = data[_DIGEST_BYTES:]
    if data[:_DIGEST_BYTES] != hashlib.sha256(body).digest():
        return None
    # A copy, because what is read out of bytes cannot be written to, which torch warns of.
    return np.frombuffer(body, "<f4").reshape(shape).astype(np.float32)


def _write(file: Path, rows: Vectors) -> None:
    body = rows.astype("<f4", copy=False).tobytes()
    # A cache is no reason to fail: the classifier is there already.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as opened:
            opened.write(hashlib.sha256(body).digest() + body)
