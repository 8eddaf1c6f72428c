"""Turn an image into the normalised square that a model was trained on.

The reference is the original CLIP pipeline, on Pillow and torchvision: resize the shorter side with an
antialiased bicubic filter, crop the centre, scale to 0..1, normalise. For an opaque, upright 8-bit RGB
photograph `Preprocess` gives the same pixels within one grey level, faster and without torchvision. docs/images.md
lists the tolerances and the intended differences; benchmarks/preprocess.py measures the speed.
"""

import typing
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diptych.data.images.decoding import WHITE, Colour, ImageSource, Pixels, read_rgb
from diptych.errors import ImageError, SettingsError

Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
ResizeMode: TypeAlias = Literal["shortest", "squash", "longest"]
Size: TypeAlias = tuple[int, int]  # width, height

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The source pixels on either side that a filter reads when it enlarges, and Pillow's name for it.
_FILTERS = {"bicubic": (2, Image.Resampling.BICUBIC), "bilinear": (1, Image.Resampling.BILINEAR)}

# With these instructions torch reduces an image several times as fast as Pillow; without them, half as fast.
_TORCH_IS_FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

# Torch resizes whole images only. Beyond this ratio of computed to kept area, Pillow's resize of the kept part alone is
# not slower, and a 1 x 10,000 image stays small in memory.
_LARGEST_WASTE = 8


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of one image. Raises `ImageError` for an image that cannot be read.

    preprocess(image) -> (3, resolution, resolution) float32, normalised
    preprocess.pixels(image) -> (resolution, resolution, 3) uint8, before normalisation
    """

    resolution: int  # pixels a side
    mean: tuple[float, float, float] = CLIP_MEAN  # of red, green, blue in 0..1
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Interpolation = "bicubic"  # always antialiased
    resize: ResizeMode = "shortest"  # CLIP: fill the square, crop the rest; squash: distort; longest: pad
    background: Colour = WHITE  # behind transparent parts and around a padded image, 0..255

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise SettingsError(f"resolution: expected at least 1 pixel, found {self.resolution}")
        if not min(self.std) > 0:
            raise SettingsError(f"std: expected three numbers above 0, found {self.std}")
        if not all(0 <= level <= 255 for level in self.background):
            raise SettingsError(f"background: expected three levels in 0..255, found {self.background}")
        for name, kind in (("interpolation", Interpolation), ("resize", ResizeMode)):
            if getattr(self, name) not in typing.get_args(kind):
                known = ", ".join(map(repr, typing.get_args(kind)))
                raise SettingsError(f"{name}: {getattr(self, name)!r} is not one of {known}")

    def __call__(self, image: ImageSource | Pixels) -> Tensor:
        square = torch.from_numpy(self.pixels(image)).permute(2, 0, 1)
        values = square.to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (self.mean, self.std))
        return values.div_(255).sub_(mean).div_(std)

    def pixels(self, image: ImageSource | Pixels) -> Pixels:
        """Return the square that the model sees, as 8-bit RGB; from an image, or from the array of `read_rgb`.

        Raises:
            ImageError: the image cannot be read, or an array is not 8-bit RGB.
        """
        if isinstance(image, np.ndarray) and (
            image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3
        ):
            raise ImageError(
                f"an array of {image.dtype} and shape {image.shape}: expected 8-bit RGB (height, width, 3); several "
                "images are a list of arrays, paths or Pillow images"
            )
        whole = image if isinstance(image, np.ndarray) else read_rgb(image, self.background)
        size = self.scaled_size(whole.shape[1], whole.shape[0])
        kept = (min(size[0], self.resolution), min(size[1], self.resolution))
        part = resize_and_crop(whole, size, kept, self.interpolation)
        if kept == (self.resolution, self.resolution):
            return np.ascontiguousarray(part)
        square = np.full((self.resolution, self.resolution, 3), self.background, dtype=np.uint8)
        left, top = ((self.resolution - side) // 2 for side in kept)
        square[top : top + kept[1], left : left + kept[0]] = part
        return square

    def scaled_size(self, width: int, height: int) -> Size:
        """Return the width and height of the whole image after resizing, before the crop or the padding."""
        n = self.resolution
        if self.resize == "squash":
            return n, n
        if self.resize == "shortest":  # torchvision's rule: the longer side is rounded down
            return (n, int(n * height / width)) if width <= height else (int(n * width / height), n)
        longer = max(width, height)
        return max(1, round(n * width / longer)), max(1, round(n * height / longer))


def resize_and_crop(whole: Pixels, size: Size, kept: Size, interpolation: Interpolation) -> Pixels:
    """Resize `whole` (height, width, 3) to `size`, and cut out the central `kept` pixels, with torchvision's rounding.

    `size` and `kept` are (width, height).
    """
    left, top = (round((total - part) / 2) for total, part in zip(size, kept, strict=True))
    # Torch rounds its weights to 15 bits, which is visible in enlarged images; Pillow's have 22.
    enlarged = size[0] > whole.shape[1] or size[1] > whole.shape[0]
    wasteful = size[0] * size[1] > _LARGEST_WASTE * kept[0] * kept[1]
    if enlarged or wasteful or not _TORCH_IS_FAST:
        return _resize_part(whole, size, (left, top), kept, interpolation)
    # (1, 3, height, width) in channels-last order: the order of the bytes, and the one that torch resizes fastest.
    batch = torch.from_numpy(whole)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size=(size[1], size[0]), mode=interpolation, antialias=True)
    pixels: Pixels = resized[0, :, top : top + kept[1], left : left + kept[0]].permute(1, 2, 0).numpy()
    return pixels


def _resize_part(whole: Pixels, size: Size, corner: Size, kept: Size, interpolation: Interpolation) -> Pixels:
    """Compute the `kept` rectangle at `corner` of `whole` resized to `size`, from the source pixels it depends on.

    Widths are resized before heights, as in torch; Pillow would choose by the shape, differently in each version.
    """
    support, filter_ = _FILTERS[interpolation]
    slices, spans = [], []
    for axis in (0, 1):
        source_side = whole.shape[1 - axis]
        scale = source_side / size[axis]
        start, stop = corner[axis] * scale, (corner[axis] + kept[axis]) * scale
        reach = support * max(scale, 1) + 1
        # Cutting first keeps the box near zero, where Pillow's single-precision coordinates are exact enough.
        first, last = max(0, int(start - reach)), min(source_side, int(stop + reach) + 1)
        slices.append(slice(first, last))
        spans.append((start - first, min(stop - first, last - first)))
    (left, right), (upper, lower) = spans
    part = Image.fromarray(np.ascontiguousarray(whole[slices[1], slices[0]]))
    part = part.resize((kept[0], part.height), filter_, box=(left, 0, right, part.height))
    return np.array(part.resize(kept, filter_, box=(0, upper, kept[0], lower)))
