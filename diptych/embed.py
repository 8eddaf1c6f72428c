"""Images and texts to unit-length vectors: in batches, decoded ahead, and nothing dropped in silence."""

import contextlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diptych import tokenizer
from diptych.atomic import atomic_write
from diptych.data.example import Example
from diptych.data.remote import is_address
from diptych.data.sources import Source
from diptych.errors import CheckpointError, DataError, ImageError, MissingExtraError, SettingsError
from diptych.models.clip import CLIP
from diptych.models.packing import order_of_batches

Vectors: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = str | Path | bytes | Image.Image
Preprocessing: TypeAlias = Callable[[Any], Tensor]
Progress: TypeAlias = Callable[[int], None]  # gets the number of items done since the last call
Encode: TypeAlias = Callable[[Sequence[Tensor]], Vectors]  # preprocessed images, at least one, to (n, width)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row of a source that has no embedding, and why."""

    position: int  # in the source
    uri: str
    reason: str  # the kind of failure, to count by
    detail: str  # the message


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Consecutive rows of a source. `vectors` is (len(examples), dim), row for row with the rest; of unit length
    where it holds embeddings."""

    positions: tuple[int, ...]
    examples: tuple[Example, ...]
    uris: tuple[str, ...]
    vectors: Vectors
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_embeddings` did."""

    count: int
    dim: int
    skipped: tuple[Skipped, ...]


def embed_images(
    model: CLIP,
    preprocess: Preprocessing,
    images: Iterable[Picture],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Vectors:
    """Unit-length embeddings (n, embed_dim) of images, in their order.

    The model computes on its own device and in its own precision; the vectors are float32.

    Raises:
        ImageError: an image cannot be read.
        CheckpointError: the model gives values that are not finite.
    """
    parts = []
    for pixels in _batches(_ahead(preprocess, images, batch_size), batch_size):
        parts.append(_encode_images(model, pixels))
        if progress is not None:
            progress(len(pixels))
    return _stack(parts, model)


def embed_texts(
    model: CLIP,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Vectors:
    """Unit-length embeddings (n, embed_dim) of texts, in their order.

    Texts that begin alike are computed together on a CPU, where the text tower computes a shared beginning once,
    and texts of like length elsewhere, where it runs up to the longest end token of a batch.

    Raises:
        TextError: a text is too long and `truncate` is off, or is not valid Unicode.
        CheckpointError: the model gives values that are not finite.
    """
    if isinstance(texts, str):
        raise TypeError("embed_texts takes a list of texts; found one string")
    vectors = np.empty((len(texts), model.architecture.embed_dim), np.float32)
    tokens = tokenizer.tokenize(texts, context_length=model.context_length, truncate=truncate)
    order = order_of_batches(tokens, model.logit_scale.device)
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        vectors[rows.numpy()] = _encode_texts(model, tokens[rows])
        if progress is not None:
            progress(len(rows))
    return vectors


def embed_source(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    *,
    positions: Iterable[int] | None = None,
    batch_size: int = 64,
) -> Iterator[EmbeddedBatch]:
    """Embeddings of a source's images, batch by batch, in the order of `positions` (every row when not
    given).

    A row that cannot be read, or whose image cannot, is listed in its batch's `skipped`; a batch may be empty
    but for those. Reading and decoding run ahead in threads while the model computes.
    """

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        return _encode_images(model, pixels)

    for batch in encode_source(encode, preprocess, source, positions=positions, batch_size=batch_size):
        yield batch if batch.positions else replace(batch, vectors=_stack([], model))


def image_features(model: CLIP) -> Encode:
    """What a linear probe is fitted on: (n, width) float32, before the projection and not of unit length."""

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        with _inference(model):
            return _finite(model.image_features(_on_device(model, pixels))).cpu().numpy()

    return encode


def encode_source(
    encode: Encode,
    preprocess: Preprocessing,
    source: Source,
    *,
    positions: Iterable[int] | None = None,
    batch_size: int = 64,
) -> Iterator[EmbeddedBatch]:
    """`embed_source` with any function of images in the model's place; `vectors` is what it returns."""

    def read(position: int) -> tuple[int, Example, Tensor] | Skipped:
        return _read(source, preprocess, position)

    rows = range(len(source)) if positions is None else positions
    for batch in _batches(_ahead(read, rows, batch_size), batch_size):
        good = [row for row in batch if not isinstance(row, Skipped)]
        yield EmbeddedBatch(
            positions=tuple(position for position, _, _ in good),
            examples=tuple(example for _, example, _ in good),
            uris=tuple(uri_of(source, example) for _, example, _ in good),
            vectors=encode([pixels for _, _, pixels in good]) if good else np.empty((0, 0), np.float32),
            skipped=tuple(row for row in batch if isinstance(row, Skipped)),
        )


def read_row(source: Source, position: int) -> Example | Skipped:
    """One row of a source, or why it cannot be read; nothing is decoded."""
    try:
        return source[position]
    except DataError as error:
        return Skipped(position, f"{source.name}#{position}", "unreadable row", str(error))


def uri_of(source: Source, example: Example) -> str:
    """Where an image is: its absolute path, or `SOURCE#KEY` for one that lives inside something else."""
    if isinstance(example.image, Path):
        return os.path.abspath(example.image)
    elsewhere = source.name.startswith(("sample:", "scenes:")) or is_address(source.name)
    return f"{source.name if elsewhere else os.path.abspath(source.name)}#{example.key}"


def count_reasons(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How many rows were skipped for each reason, the most frequent first."""
    return dict(Counter(row.reason for row in skipped).most_common())


def write_embeddings(
    path: str | Path,
    batches: Iterable[EmbeddedBatch],
    *,
    about: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write the embeddings of `embed_source` to a `.parquet` or an `.npy` file, which appears only when
    whole.

    Parquet: columns `uri`, `key`, `caption` (the first one, or null), `label` (or null) and `vector` (a list
    of embed_dim float32), with `about` in the file's metadata under `diptych`. NumPy: an array (n, embed_dim)
    of float32, and beside it `NAME.jsonl` with the other columns, row for row.

    Raises:
        SettingsError: the name ends in neither.
        DataError: no image could be read; no file is written.
        MissingExtraError: Parquet without pyarrow.
    """
    target = Path(path)
    writers = {".parquet": _write_parquet, ".npy": _write_npy}
    if target.suffix not in writers:
        raise SettingsError(f"{target}: expected a file name that ends in {' or '.join(writers)}")
    if not target.parent.is_dir():
        raise SettingsError(f"{target}: the folder {target.parent} does not exist; make it first")
    skipped: list[Skipped] = []
    count, dim = writers[target.suffix](target, _noting(batches, skipped, progress), about or {})
    return Written(count, dim, tuple(skipped))


def _noting(
    batches: Iterable[EmbeddedBatch], skipped: list[Skipped], progress: Progress | None
) -> Iterator[EmbeddedBatch]:
    count = 0
    for batch in batches:
        count += len(batch.examples)
        skipped.extend(batch.skipped)
        if batch.examples:
            yield batch
        if progress is not None:
            progress(len(batch.examples) + len(batch.skipped))
    if not count:
        raise DataError(none_readable(skipped))


def none_readable(skipped: Sequence[Skipped]) -> str:
    """The message for a source of which nothing is left."""
    if not skipped:
        return "the source has no images"
    return f"none of {len(skipped)} images could be read; the first: {skipped[0].detail}"


def _write_npy(target: Path, batches: Iterator[EmbeddedBatch], about: dict[str, str]) -> tuple[int, int]:
    count, dim = 0, 0
    header = {"descr": "<f4", "fortran_order": False}
    # The list of rows is in place before the array that needs it.
    with atomic_write(target) as file, atomic_write(target.with_suffix(".jsonl")) as rows:
        # numpy pads the header so that the number of rows can grow in place: it is written again at the end.
        for batch in batches:
            if not count:
                dim = batch.vectors.shape[1]
                np.lib.format.write_array_header_1_0(file, header | {"shape": (0, dim)})
            file.write(batch.vectors.astype("<f4", copy=False).tobytes())
            for uri, example in zip(batch.uris, batch.examples, strict=True):
                rows.write(json.dumps(_columns(uri, example), ensure_ascii=False).encode() + b"\n")
            count += len(batch.uris)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, dim)})
    return count, dim


def _write_parquet(target: Path, batches: Iterator[EmbeddedBatch], about: dict[str, str]) -> tuple[int, int]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "writing Parquet") from None
    count, dim = 0, 0
    with atomic_write(target) as file, contextlib.ExitStack() as stack:
        for batch in batches:
            if not count:
                dim = batch.vectors.shape[1]
                names = [pa.field(name, pa.string()) for name in ("uri", "key", "caption", "label")]
                schema = pa.schema(
                    [*names, pa.field("vector", pa.list_(pa.float32(), dim))],
                    metadata={"diptych": json.dumps(about)},
                )
                writer = stack.enter_context(pq.ParquetWriter(file, schema))
            columns = [
                _columns(uri, example) for uri, example in zip(batch.uris, batch.examples, strict=True)
            ]
            arrays = [pa.array([row[name] for row in columns], pa.string()) for name in schema.names[:-1]]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.ravel()), dim)
            writer.write_batch(pa.record_batch([*arrays, vectors], schema=schema))
            count += len(batch.uris)
    return count, dim


def _columns(uri: str, example: Example) -> dict[str, str | None]:
    caption = example.captions[0] if example.captions else None
    return {"uri": uri, "key": example.key, "caption": caption, "label": example.label}


def _read(source: Source, preprocess: Preprocessing, position: int) -> tuple[int, Example, Tensor] | Skipped:
    example = read_row(source, position)
    if isinstance(example, Skipped):
        return example
    try:
        return position, example, preprocess(example.image)
    except ImageError as error:
        uri = uri_of(source, example)
        # Bytes have no name of their own to put into the message.
        detail = str(error) if isinstance(example.image, Path) else f"{uri}: {error}"
        return Skipped(position, uri, "unreadable image", detail)


def _encode_images(model: CLIP, pixels: Sequence[Tensor]) -> Vectors:
    with _inference(model):
        return _unit_rows(model.encode_image(_on_device(model, pixels)))


def _encode_texts(model: CLIP, tokens: Tensor) -> Vectors:
    with _inference(model):
        return _unit_rows(model.encode_text(tokens.to(model.logit_scale.device)))


def _on_device(model: CLIP, pixels: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(pixels)).to(model.logit_scale.device)


def _unit_rows(features: Tensor) -> Vectors:
    vectors: Vectors = F.normalize(_finite(features), dim=-1).cpu().numpy()
    return vectors


def _finite(features: Tensor) -> Tensor:
    rows = features.float()
    if not torch.isfinite(rows).all():
        raise CheckpointError(
            f"the model gives values that are not finite in {str(features.dtype).removeprefix('torch.')}; "
            "its weights are damaged, or they need precision float32"
        )
    return rows


@contextlib.contextmanager
def _inference(model: CLIP) -> Iterator[None]:
    """No gradients and no dropout; a model in training goes on as it was."""
    training = model.training
    if training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()


def _stack(parts: Sequence[Vectors], model: CLIP) -> Vectors:
    return np.concatenate(parts) if parts else np.empty((0, model.architecture.embed_dim), np.float32)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _ahead(function: Callable[[T], R], items: Iterable[T], batch_size: int) -> Iterator[R]:
    """`map` in threads, in order, two batches ahead of whoever takes the results."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
