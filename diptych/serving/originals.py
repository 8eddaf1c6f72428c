"""Original image files: only the bytes that the index recorded are sent."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from diptych.data.images.decoding import DEFAULT_LIMITS, format_of
from diptych.search.stores.image_rows import Item

# Every format that Diptych reads.
_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIC": "image/heic",
}


@dataclass(frozen=True, slots=True)
class Original:
    """An image file."""

    data: bytes
    content_type: str  # from its first bytes, not from its name
    sha256: str


def read_original(item: Item) -> Original | None:
    """Read the file of `item`. Return None if it is missing, has changed, or lies inside another file.

    The hash decides. A path may lead to a link or a device by now; only bytes that were indexed leave the machine.
    """
    path = Path(item.uri)
    if item.mtime_ns is None or not path.is_absolute() or item.size > DEFAULT_LIMITS.file_bytes:
        return None
    try:
        # Non-blocking: if the path has become a pipe, a plain open would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            data = file.read(item.size + 1)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(data).hexdigest() != item.sha256:
        return None
    kind = format_of(data)
    return None if kind is None else Original(data, _TYPES[kind], item.sha256)
