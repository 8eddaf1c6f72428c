"""Embed images and texts as unit-length vectors, in batches, decoding ahead and dropping nothing silently."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diptych import tokenizer
from diptych.embed.ahead import ahead, in_batches
from diptych.errors import CheckpointError, ImageError
from diptych.models.capabilities import EmbedsImages, EmbedsTexts, Runs
from diptych.models.layers.text_packing import order_of_batches

Vectors: TypeAlias = NDArray[np.float32]
ImageInput: TypeAlias = str | Path | bytes | Image.Image | np.ndarray  # arrays: 8-bit RGB (height, width, 3)
Preprocessing: TypeAlias = Callable[[Any], Tensor]
Progress: TypeAlias = Callable[[int], None]  # gets the number of items done since the last call
Encode: TypeAlias = Callable[[Sequence[Tensor]], Vectors]  # preprocessed images, at least one, to (n, width)
Unreadable: TypeAlias = Callable[
    [int, ImageError], None
]  # gets the position of an image, and what is wrong with it


def embed_images(
    model: EmbedsImages,
    preprocess: Preprocessing,
    images: ImageInput | Iterable[ImageInput],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> Vectors:
    """Embed images as vectors of unit length, so that a product of two vectors is their cosine.

    The model computes on its own device and in its own precision. Images are decoded ahead in threads.

    Args:
        model: a model of `load`.
        preprocess: what `load` returned beside it.
        images: one image or several: paths, the bytes of files, Pillow images, or arrays (height, width, 3) of 8-bit
            RGB.
        batch_size: images that the model embeds at once.
        progress: gets the number of images done since the last call.
        unreadable: gets the position of an image that cannot be read, and the `ImageError`; that image then has no
            row. Such an image is an error when not given.

    Returns:
        Vectors (n, embed_dim), float32, in the order of the images; (1, embed_dim) of a single image.

    Raises:
        ImageError: an image cannot be read, and there is no `unreadable`.
        CheckpointError: the model gives values that are not finite.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> diptych.embed_images(model, preprocess, "images/bicycle.webp").shape
        (1, 256)
    """
    parts = []
    for pixels, done in preprocessed(preprocess, images, batch_size, unreadable):
        if pixels:
            parts.append(encode_pixels(model, pixels))
        if progress is not None:
            progress(done)
    return stacked(parts, model)


def preprocessed(
    preprocess: Preprocessing,
    images: ImageInput | Iterable[ImageInput],
    batch_size: int,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Tensor], int]]:
    """Preprocess images in threads; yield batches of those that can be read, and how many were looked at for each.

    Raises:
        ImageError: an image cannot be read, and there is no `unreadable`, which otherwise gets it.
    """
    some = [images] if isinstance(images, ImageInput) else images

    def read(image: ImageInput) -> Tensor | ImageError:
        try:
            return preprocess(image)
        except ImageError as error:
            return error

    position = 0
    for batch in in_batches(ahead(read, some, batch_size), batch_size):
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
    model: EmbedsTexts,
    texts: str | Sequence[str],
    *,
    batch_size: int = 256,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Vectors:
    """Embed texts as vectors of unit length, so that a product of two vectors is their cosine.

    Args:
        model: a model of `load`.
        texts: one text or several.
        batch_size: texts that the model embeds at once.
        truncate: cut texts that are too long for the model; they are an error otherwise.
        progress: gets the number of texts done since the last call.

    Returns:
        Vectors (n, embed_dim), float32, in the order of the texts; (1, embed_dim) of a single text.

    Raises:
        TextError: a text is too long and `truncate` is off, or is not valid Unicode.
        CheckpointError: the model gives values that are not finite.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> texts = diptych.embed_texts(model, ["a bicycle", "a guitar"])
        >>> image = diptych.embed_images(model, preprocess, "images/bicycle.webp")
        >>> int((image @ texts.T).argmax())
        0
    """
    # Texts that begin alike are computed together on a CPU, where the text tower computes a shared beginning once,
    # and texts of like length elsewhere, where it runs up to the longest end token of a batch.
    texts = [texts] if isinstance(texts, str) else texts
    vectors = np.empty((len(texts), model.architecture.embed_dim), np.float32)
    tokens = tokenizer.tokenize(texts, context_length=model.context_length, truncate=truncate)
    order = order_of_batches(tokens, model.device)
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        vectors[rows.numpy()] = encode_tokens(model, tokens[rows])
        if progress is not None:
            progress(len(rows))
    return vectors


def encode_pixels(model: EmbedsImages, pixels: Sequence[Tensor]) -> Vectors:
    """Embed preprocessed images, at least one, in one pass: (n, embed_dim), unit length."""
    with _inference(model):
        return _unit_rows(model.encode_image(_on_device(model, pixels)))


def encode_tokens(model: EmbedsTexts, tokens: Tensor) -> Vectors:
    """Embed tokenized texts (n, context_length) in one pass: (n, embed_dim), unit length."""
    with _inference(model):
        return _unit_rows(model.encode_text(tokens.to(model.device)))


def encode_by(model: Runs, method: Callable[[Tensor], Tensor]) -> Encode:
    """Return what computes a method of the model, such as `model.image_features`, for preprocessed images.

    The rows, (n, width), are float32 and not of unit length.
    """

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        with _inference(model):
            return _finite(method(_on_device(model, pixels))).cpu().numpy()

    return encode


def stacked(parts: Sequence[Vectors], model: Runs) -> Vectors:
    return np.concatenate(parts) if parts else np.empty((0, model.architecture.embed_dim), np.float32)


def _on_device(model: Runs, pixels: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(pixels)).to(model.device)


def _unit_rows(features: Tensor) -> Vectors:
    vectors: Vectors = F.normalize(_finite(features), dim=-1).cpu().numpy()
    return vectors


def _finite(features: Tensor) -> Tensor:
    rows = features.float()
    if not torch.isfinite(rows).all():
        raise CheckpointError(
            f"the model gives values that are not finite in {str(features.dtype).removeprefix('torch.')}; "
            "its weights are damaged, were trained at too high a learning rate, or need precision float32"
        )
    return rows


@contextlib.contextmanager
def _inference(model: Runs) -> Iterator[None]:
    """No gradients and no dropout; a model in training goes on as it was."""
    training = model.training
    if training:
        model.train(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()
