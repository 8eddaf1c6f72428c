"""Small copies of images for pages."""

import io
from pathlib import Path

from PIL import Image

from diptych.data.images.decoding import read_rgb


def thumbnail(image: Path | bytes, side: int) -> bytes:
    """Return an image as a PNG of at most `side` pixels a side.

    Raises:
        ImageError: it cannot be read.
    """
    small = Image.fromarray(read_rgb(image))
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()
