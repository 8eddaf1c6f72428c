"""Decode images for training, before the random part of a view."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from diptych.data.example import Example
from diptych.data.images.augmentations import Augmentation, Drawings, RandomCrop
from diptych.data.images.decoding import Pixels, open_image, read_rgb, to_rgb
from diptych.data.images.transforms import Preprocess
from diptych.data.images.two_views import TwoViews

Chance = npt.NDArray[np.float64]

_MARGIN = 1.125  # side of a drawing's canvas over the model's resolution: scaled-down views stay sharp
_CROPPED = 2  # likewise for crops: a crop of a quarter of the image has the model's resolution


@dataclass(frozen=True)
class Canvas:
    """The two steps of reading an image.

    decode: turns an example into an array, the same every time, which may be kept in memory.
    crop: turns that array and two random numbers into (channels, side, side) uint8, of one size for every example.
    """

    decode: Callable[[Example], Pixels]
    crop: Callable[[Pixels, Chance], Pixels]


def canvas_for(augmentation: Augmentation, preprocess: Preprocess) -> Canvas:
    """Return the steps that read an image for an augmentation."""
    resolution = preprocess.resolution
    if isinstance(augmentation, Drawings):
        side = round(resolution * _MARGIN)
        return Canvas(lambda example: drawing(example, side), lambda pixels, _: pixels)
    if isinstance(augmentation, RandomCrop):
        return Canvas(
            lambda example: resized(example, preprocess),
            lambda pixels, chance: random_square(pixels, chance, resolution),
        )
    if isinstance(augmentation, TwoViews):
        return Canvas(
            lambda example: squashed(example, preprocess, _CROPPED * resolution), lambda pixels, _: pixels
        )
    return Canvas(lambda example: _planes(preprocess.pixels(example.image)), lambda pixels, _: pixels)


def drawing(example: Example, side: int) -> Pixels:
    """Read the whole image with its transparency, centred on a transparent square: (4, side, side).

    A larger image is reduced; a smaller one keeps its pixels.
    """
    image = open_image(example.image)
    # Palettes and 16-bit grey follow the one policy for colours; an opaque image stays opaque.
    drawn = image.convert("RGBA") if image.has_transparency_data else to_rgb(image).convert("RGBA")
    if max(drawn.size) > side:
        factor = side / max(drawn.size)
        drawn = drawn.resize(
            (max(1, round(drawn.width * factor)), max(1, round(drawn.height * factor))),
            Image.Resampling.BICUBIC,
        )
    square = np.zeros((side, side, 4), np.uint8)
    left, top = (side - drawn.width) // 2, (side - drawn.height) // 2
    square[top : top + drawn.height, left : left + drawn.width] = np.asarray(drawn)
    return _planes(square)


def resized(example: Example, preprocess: Preprocess) -> Pixels:
    """Read the whole image with its shorter side at the model's resolution: (3, height, width)."""
    whole = read_rgb(example.image, preprocess.background)
    size = preprocess.scaled_size(whole.shape[1], whole.shape[0])
    filter_ = Image.Resampling[preprocess.interpolation.upper()]
    return _planes(np.asarray(Image.fromarray(whole).resize(size, filter_)))


def squashed(example: Example, preprocess: Preprocess, side: int) -> Pixels:
    """Read the whole image, distorted to a square: (3, side, side)."""
    whole = Image.fromarray(read_rgb(example.image, preprocess.background))
    filter_ = Image.Resampling[preprocess.interpolation.upper()]
    return _planes(np.asarray(whole.resize((side, side), filter_)))


def random_square(pixels: Pixels, chance: Chance, side: int) -> Pixels:
    """Cut a random square out of (channels, height, width). chance: (2,) uniform numbers, down and across."""
    top, left = (
        int(number * (length - side + 1)) for number, length in zip(chance, pixels.shape[1:], strict=True)
    )
    return pixels[:, top : top + side, left : left + side]


def _planes(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
