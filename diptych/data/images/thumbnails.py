"""Make small copies of images from their pixels alone."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diptych.data.images.decoding import Pixels
from diptych.data.images.transforms import resize_and_crop

try:  # from the extra `data`: it is faster, and lets other threads run meanwhile
    import simplejpeg
except ImportError:
    simplejpeg = None

SIDE = 320  # pixels of the longer side: sharp in a grid of cards on most screens
MEDIA_TYPE = "image/jpeg"  # WebP of the same size takes ten times as long, more than a small model does
_QUALITY = 80
# The least number of rows of a large image behind each row of the copy: the rest need not be read.
_ROWS = 3


@dataclass(frozen=True, slots=True)
class Preview:
    """The size in pixels of an upright image, and a small copy, which a page shows before the image itself."""

    width: int
    height: int
    thumbnail: bytes  # of MEDIA_TYPE


def preview(pixels: Pixels, side: int = SIDE, size: tuple[int, int] | None = None) -> Preview:
    """Make the preview of upright 8-bit RGB `pixels` (height, width, 3).

    size: the width and height to note, if the image was read reduced; those of `pixels` by default.

    Only pixels go into the small copy: no EXIF, no position of the photograph, no colour profile. An image smaller than
    `side` keeps its size.
    """
    width, height = size or (pixels.shape[1], pixels.shape[0])
    small = _smaller(pixels, side)
    # An image that keeps its size, such as a drawing or an icon, keeps its colours at full resolution.
    sampling = "420" if small is not pixels else "444"
    return Preview(width, height, _as_jpeg(small, sampling))


def _as_jpeg(pixels: Pixels, sampling: str) -> bytes:
    if simplejpeg is not None:
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), _QUALITY, colorsubsampling=sampling
        )
        return data
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, subsampling=":".join(sampling))
    return file.getvalue()


def _smaller(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = max(1, height // (_ROWS * size[1]))
    return resize_and_crop(np.ascontiguousarray(pixels[step // 2 :: step]), size, size, "bicubic")
