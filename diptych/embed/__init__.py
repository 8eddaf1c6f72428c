"""Images and texts to unit-length vectors: in batches, decoded ahead, and nothing dropped in silence."""

import contextlib
import hashlib
import os
from collections import deque
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
from diptych.data.example import Example
from diptych.data.files.remote import is_address
from diptych.data.images.decoding import WHITE, Pixels, default_limits, read_file, read_rgb, upright_size
from diptych.data.images.thumbnails import Preview, preview
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import LeftOut
from diptych.data.reasons import reason_of
from diptych.data.sources.opening import Source
from diptych.errors import CheckpointError, DataError, ImageError
from diptych.models.clip import CLIP
from diptych.models.layers.text_packing import order_of_batches

Vectors: TypeAlias = NDArray[np.float32]
Picture: TypeAlias = str | Path | bytes | Image.Image
Preprocessing: TypeAlias = Callable[[Any], Tensor]
Progress: TypeAlias = Callable[[int], None]  # gets the number of items done since the last call
Encode: TypeAlias = Callable[[Sequence[Tensor]], Vectors]  # preprocessed images, at least one, to (n, width)
Unreadable: TypeAlias = Callable[
    [int, ImageError], None
]  # gets the position of an image, and what is wrong with it

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row of a source that has no embedding, and why."""

    position: int  # in the source
    uri: str
    reason: str  # the kind of failure, to count by: `diptych.data.reasons`
    detail: str  # the message


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Consecutive rows of a source. `vectors` is (len(examples), dim), row for row with the rest; of unit length
    where it holds embeddings. `previews` and `sha256`, of the images' files, are empty where none were asked for."""

    positions: tuple[int, ...]
    examples: tuple[Example, ...]
    uris: tuple[str, ...]
    vectors: Vectors
    skipped: tuple[Skipped, ...]
    previews: tuple[Preview, ...] = ()
    sha256: tuple[str, ...] = ()


def embed_images(
    model: CLIP,
    preprocess: Preprocessing,
    images: Picture | Iterable[Picture],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> Vectors:
    """Return the unit-length embeddings (n, embed_dim) of images, in their order; (1, embed_dim) of a single one.

    The model computes on its own device and in its own precision; the vectors are float32. With `unreadable`, an image
    that cannot be read has no row, and is given to that function in place of the error.

    Raises:
        ImageError: an image cannot be read, and there is no `unreadable`.
        CheckpointError: the model gives values that are not finite.
    """
    parts = []
    for pixels, done in preprocessed(preprocess, images, batch_size, unreadable):
        if pixels:
            parts.append(encode_pixels(model, pixels))
        if progress is not None:
            progress(done)
    return _stack(parts, model)


def preprocessed(
    preprocess: Preprocessing,
    images: Picture | Iterable[Picture],
    batch_size: int,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Tensor], int]]:
    """Preprocess images in threads; yield batches of those that can be read, and how many were looked at for each.

    Raises:
        ImageError: an image cannot be read, and there is no `unreadable`, which otherwise gets it.
    """
    some = [images] if isinstance(images, str | Path | bytes | Image.Image) else images

    def read(image: Picture) -> Tensor | ImageError:
        try:
            return preprocess(image)
        except ImageError as error:
            return error

    position = 0
    for batch in _batches(_ahead(read, some, batch_size), batch_size):
        good = []
        for found in batch:
            if not isinstance(found, ImageError):
                good.append(found)
            elif unreadable is None:
                raise found
            else:
                unreadable(position, found)
            position += 1
        yield good, len(batch)


def embed_texts(
    model: CLIP,
    texts: str | Sequence[str],
    *,
    batch_size: int = 256,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Vectors:
    """Return the unit-length embeddings (n, embed_dim) of texts, in their order; (1, embed_dim) of a single one.

    Texts that begin alike are computed together on a CPU, where the text tower computes a shared beginning once,
    and texts of like length elsewhere, where it runs up to the longest end token of a batch.

    Raises:
        TextError: a text is too long and `truncate` is off, or is not valid Unicode.
        CheckpointError: the model gives values that are not finite.
    """
    texts = [texts] if isinstance(texts, str) else texts
    vectors = np.empty((len(texts), model.architecture.embed_dim), np.float32)
    tokens = tokenizer.tokenize(texts, context_length=model.context_length, truncate=truncate)
    order = order_of_batches(tokens, model.logit_scale.device)
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        vectors[rows.numpy()] = encode_tokens(model, tokens[rows])
        if progress is not None:
            progress(len(rows))
    return vectors


def encode_pixels(model: CLIP, pixels: Sequence[Tensor]) -> Vectors:
    """Unit-length embeddings (n, embed_dim) of preprocessed images, at least one, in one pass."""
    with _inference(model):
        return _unit_rows(model.encode_image(_on_device(model, pixels)))


def encode_tokens(model: CLIP, tokens: Tensor) -> Vectors:
    """Unit-length embeddings (n, embed_dim) of tokenized texts (n, context_length), in one pass."""
    with _inference(model):
        return _unit_rows(model.encode_text(tokens.to(model.logit_scale.device)))


def embed_source(
    model: CLIP,
    preprocess: Preprocessing,
    source: Source,
    *,
    positions: Iterable[int] | None = None,
    batch_size: int = 64,
    previews: bool = False,
    hashes: bool = False,
) -> Iterator[EmbeddedBatch]:
    """Embeddings of a source's images, batch by batch, in the order of `positions` (every row when not
    given).

    A row that cannot be read, or whose image cannot, is listed in its batch's `skipped`; a batch may be empty
    but for those. Reading and decoding run ahead in threads while the model computes. `previews` makes the
    preview of each image too, of the same decoded pixels; `hashes` the SHA-256 of its file, of the same bytes.
    """

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        return encode_pixels(model, pixels)

    batches = encode_source(
        encode,
        preprocess,
        source,
        positions=positions,
        batch_size=batch_size,
        previews=previews,
        hashes=hashes,
    )
    for batch in batches:
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
    previews: bool = False,
    hashes: bool = False,
) -> Iterator[EmbeddedBatch]:
    """`embed_source` with any function of images in the model's place; `vectors` is what it returns."""

    def read(position: int) -> _Read | Skipped:
        return _read(source, preprocess, position, previews, hashes)

    rows = range(len(source)) if positions is None else positions
    for batch in _batches(_ahead(read, rows, batch_size), batch_size):
        good = [row for row in batch if not isinstance(row, Skipped)]
        yield EmbeddedBatch(
            positions=tuple(row.position for row in good),
            examples=tuple(row.example for row in good),
            uris=tuple(uri_of(source, row.example) for row in good),
            vectors=encode([row.pixels for row in good]) if good else np.empty((0, 0), np.float32),
            skipped=tuple(row for row in batch if isinstance(row, Skipped)),
            previews=tuple(row.preview for row in good if row.preview is not None),
            sha256=tuple(row.sha256 for row in good if row.sha256 is not None),
        )


def read_row(source: Source, position: int) -> Example | Skipped:
    """One row of a source, or why it cannot be read; nothing is decoded."""
    try:
        return source[position]
    except DataError as error:
        uri = f"{source.name}#{position}" if error.image is None else os.path.abspath(error.image)
        return Skipped(position, uri, reason_of(error), str(error))


def uri_of(source: Source, example: Example) -> str:
    """Where an image is: its absolute path, or `SOURCE#KEY` for one that lives inside something else."""
    if isinstance(example.image, Path):
        return os.path.abspath(example.image)
    elsewhere = source.name.startswith(("sample:", "scenes:")) or is_address(source.name)
    return f"{source.name if elsewhere else os.path.abspath(source.name)}#{example.key}"


def count_reasons(skipped: Iterable[Skipped]) -> LeftOut:
    """Count the rows that were skipped for each reason, the most frequent first; the first are named."""
    found = LeftOut()
    for row in skipped:
        found.add(row.reason, row.uri)
    return found


def none_readable(skipped: Sequence[Skipped]) -> str:
    """The message for a source of which nothing is left."""
    if not skipped:
        return "the source has no images"
    return f"none of {len(skipped)} images could be read; the first: {skipped[0].detail}"


@dataclass(frozen=True, slots=True)
class _Read:
    """One row whose image has been decoded; `pixels` as the model takes them."""

    position: int
    example: Example
    pixels: Tensor
    preview: Preview | None
    sha256: str | None


def _read(
    source: Source, preprocess: Preprocessing, position: int, previews: bool, hashes: bool
) -> _Read | Skipped:
    example = read_row(source, position)
    if isinstance(example, Skipped):
        return example
    try:
        image: Any = example.image
        sha256 = look = None
        if hashes:
            image = image if isinstance(image, bytes) else read_file(image)
            sha256 = hashlib.sha256(image).hexdigest()
        if previews:
            background = preprocess.background if isinstance(preprocess, Preprocess) else WHITE
            encoded, image = image, read_rgb(image, background)
            look = preview(image, size=_size_in_file(encoded, image))
        return _Read(position, example, preprocess(image), look, sha256)
    except ImageError as error:
        uri = uri_of(source, example)
        # Bytes have no name of their own to put into the message.
        named = isinstance(example.image, Path) and str(error).startswith(str(example.image))
        return Skipped(position, uri, reason_of(error), str(error) if named else f"{uri}: {error}")


def _size_in_file(encoded: Path | bytes, pixels: Pixels) -> tuple[int, int] | None:
    """Width and height that the file says, for an image that may have been read reduced; None where it was not."""
    # What is read reduced is at least a quarter of the most that is decoded: else half the reduction would do.
    few = pixels.shape[0] * pixels.shape[1] <= default_limits().pixels // 8
    return None if few else upright_size(encoded)


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
