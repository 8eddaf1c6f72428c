"""Image files that tests make: through Pillow where it can, byte by byte where it cannot."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawing(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth and asymmetric, so that every encoder keeps it and no flip leaves it as it is."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    levels = np.stack([x * 255 // width, y * 255 // height, (x * y) % 97], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def heic(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, samples: bytes | None, *extra: bytes) -> bytes:
    """A PNG of rows without filters; without `samples` it is only a header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if samples is None:
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b""))
    step = len(samples) // height
    rows = b"".join(b"\0" + samples[at : at + step] for at in range(0, len(samples), step))
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def tiff(width: int, height: int, bits: int, samples: bytes, sample_format: int = 1) -> bytes:
    """A little-endian TIFF of one grey strip."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height, 279: len(samples)}
    tags |= {273: 8 + 2 + 12 * 10 + 4, 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(4) + samples


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
