"""Decode image files to upright 8-bit RGB, by the policy of docs/images.md.

An image file is untrusted data. Its first bytes choose exactly one decoder of a short list, never one that merely
happens to be registered in Pillow. A file that is too large is refused before decoding. Every failure of a decoder
becomes an `ImageError` that names the image and a remedy.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from diptych.data.images.truncation import is_cut
from diptych.errors import ImageError, SettingsError

try:
    import simplejpeg
except ImportError:  # the extra `data`: the same pixels, decoded in two thirds of the time
    simplejpeg = None

try:
    import pillow_heif
except ImportError:  # the extra `heic`
    pillow_heif = None  # type: ignore[assignment]

Pixels: TypeAlias = npt.NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]
ImageSource: TypeAlias = Path | str | bytes | BinaryIO | Image.Image

WHITE: Colour = (255, 255, 255)
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
READS_HEIC = pillow_heif is not None
HEIC_NEEDS = "HEIC needs the extra: pip install 'diptych[heic]'"
MOST_PIXELS = "DIPTYCH_MAX_PIXELS"  # the environment variable behind `--max-pixels`

_HEIF: Any = pillow_heif.HeifImageFile if READS_HEIC else None

# Pillow's Image.open is not used: it warns about large images, which cannot be silenced for one thread alone, and it
# gives a JPEG with several images to another decoder.
_DECODERS: dict[str, tuple[re.Pattern[bytes], Callable[..., ImageFile.ImageFile]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    # Some writers name only the container (mif1) first, and the content among the compatible brands that follow.
    "HEIC": (
        re.compile(
            rb"....ftyp((heic|heix|heim|heis|hevc|hevx)|(mif1|msf1).{4}(.{4}){0,15}?hei[cxms])", re.DOTALL
        ),
        _HEIF,
    ),
    "AVIF": (re.compile(rb"....ftyp(avif|avis|mif1)", re.DOTALL), AvifImagePlugin.AvifImageFile),
}

# The operation that undoes each EXIF orientation, for a Pillow image and for an array (height, width, 3).
_UPRIGHT: dict[int, tuple[Image.Transpose, Callable[[Pixels], Pixels]]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda pixels: pixels[:, ::-1]),
    3: (Image.Transpose.ROTATE_180, lambda pixels: pixels[::-1, ::-1]),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda pixels: pixels[::-1]),
    5: (Image.Transpose.TRANSPOSE, lambda pixels: pixels.swapaxes(0, 1)),
    6: (Image.Transpose.ROTATE_270, lambda pixels: np.rot90(pixels, -1)),
    7: (Image.Transpose.TRANSVERSE, lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1)),
    8: (Image.Transpose.ROTATE_90, np.rot90),
}

_EIGHT_OF_SIXTEEN_BITS: Pixels = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that are checked before a decoder allocates memory. The defaults are for a user's own files."""

    file_bytes: int = 100_000_000
    pixels: int = 50_000_000  # decoded at a time; 8-bit RGB takes four bytes per pixel meanwhile
    side: int = 1_000_000  # pixels; the weights of a resize take memory in proportion to the longer side
    formats: tuple[str, ...] = tuple(_DECODERS)
    reduced: bool = True  # read a JPEG of more pixels at 1/2, 1/4 or 1/8 of its sides, instead of refusing it


DEFAULT_LIMITS = Limits()

# A baseline JPEG takes at least about 1/170 byte per pixel, in a blank image with tables made for it. A file with less
# than a third of that cannot contain the image that its header promises.
_PIXELS_A_BYTE = 512


def default_limits() -> Limits:
    """Return `DEFAULT_LIMITS`, with the pixels that `DIPTYCH_MAX_PIXELS` (`--max-pixels`) allows, if it is set.

    Raises:
        SettingsError: the variable is not a whole number above 0.
    """
    text = os.environ.get(MOST_PIXELS)
    if not text:
        return DEFAULT_LIMITS
    try:
        pixels = int(text.replace("_", ""))
    except ValueError:
        pixels = 0
    if pixels < 1:
        raise SettingsError(f"{MOST_PIXELS}={text}: expected a number of pixels, such as 200000000")
    return replace(DEFAULT_LIMITS, pixels=pixels)


def open_image(source: ImageSource, limits: Limits | None = None) -> Image.Image:
    """Decode the first frame of an image, upright, in the mode of its file.

    `source` is a path, the bytes of a file, a binary stream (read from its current position), or a Pillow image.
    `limits` (default: `default_limits()`) apply to all but a Pillow image, which the caller has opened: that is only
    decoded and turned upright. A JPEG of more pixels is read at 1/2, 1/4 or 1/8 of its sides.

    Raises `ImageError` for anything that cannot be read.
    """
    if isinstance(source, Image.Image):
        return _decode(source, _name(source))
    limits = limits or default_limits()
    data, name = _read(source, limits)
    return _decode(_parse_to_decode(data, name, limits), name, data)


def to_rgb(image: Image.Image, background: Colour = WHITE) -> Image.Image:
    """Convert `image` to 8-bit RGB: transparent parts show `background`, 16-bit grey keeps its range.

    Returns `image` itself if it is opaque RGB already. Raises `ImageError` for pixels without an agreed range (32-bit
    integers, floating point).
    """
    name = _name(image)
    with _decoding(name):
        if image.mode.startswith("I;16"):
            image = _grey_of_16_bits(image)
        elif image.mode in ("I", "F"):
            kind = "32-bit integers" if image.mode == "I" else "floating point"
            raise ImageError(
                f"{name}: its pixels are {kind}, whose range from black to white is unknown; "
                "save it with 8 or 16 bits per channel"
            )
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            flat = Image.new("RGB", image.size, background)
            flat.paste(layer, mask=layer)
            return flat
        return image if image.mode == "RGB" else image.convert("RGB")


def read_rgb(source: ImageSource, background: Colour = WHITE, limits: Limits | None = None) -> Pixels:
    """Return `to_rgb(open_image(source))` as an array (height, width, 3); JPEG by a faster decoder if installed."""
    if isinstance(source, Image.Image):
        return np.array(to_rgb(open_image(source), background))
    limits = limits or default_limits()
    data, name = _read(source, limits)
    parsed = _parse_to_decode(data, name, limits)
    pixels = _decode_jpeg(data, parsed) if parsed.format == "JPEG" else None
    return np.array(to_rgb(_decode(parsed, name, data), background)) if pixels is None else pixels


def read_file(path: Path | str, limits: Limits | None = None) -> bytes:
    """Read the bytes of an image file. Raises `ImageError` if it cannot be read, or is larger than `limits`."""
    return _read(path, limits or default_limits())[0]


def read_exif(data: bytes, limits: Limits | None = None) -> bytes:
    """Return the raw EXIF of an encoded image; for a TIFF, whose tags are EXIF, the whole file.

    No pixel is decoded. Raises `ImageError` as `open_image` does.
    """
    limits = limits or default_limits()
    parsed = _parse(*_read(data, limits), limits)
    # Pillow's `getexif` would decode the whole PNG for EXIF that may lie at its end.
    found = data if parsed.format == "TIFF" else parsed.info.get("exif")
    return found if isinstance(found, bytes) else b""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an image file. Sides are in pixels, as stored: the orientation may exchange them."""

    format: str  # JPEG, PNG, ...
    width: int
    height: int
    file_bytes: int
    sha256: str  # of the file


def read_header(source: Path | str | bytes | BinaryIO, limits: Limits | None = None) -> Header:
    """Read the header of an image. Nothing is decoded, so damage behind the header goes unnoticed.

    Raises `ImageError` for a file that is not an image, or is too large.
    """
    limits = limits or default_limits()
    data, name = _read(source, limits)
    parsed = _parse(data, name, limits)
    return Header(str(format_of(data)), *parsed.size, len(data), hashlib.sha256(data).hexdigest())


def upright_size(source: Path | str | bytes, limits: Limits | None = None) -> tuple[int, int]:
    """Read the width and height of the upright image from its header, even if `read_rgb` reads it reduced."""
    limits = limits or default_limits()
    parsed = _parse(*_read(source, limits), limits)
    width, height = parsed.size
    return (height, width) if _orientation(parsed) >= 5 else (width, height)


def format_of(data: bytes) -> str | None:
    """Return the format (JPEG, PNG, ...) by the first bytes alone; None for a file of no known format."""
    return next((kind for kind, (signature, _) in _DECODERS.items() if signature.match(data)), None)


def _read(source: Path | str | bytes | BinaryIO, limits: Limits) -> tuple[bytes, str]:
    """Read the bytes of a file, at most `limits.file_bytes`; returns them, and the name for errors."""
    if isinstance(source, bytes):
        data, name, size = source, f"image of {len(source):,} bytes", len(source)
    elif isinstance(source, Path | str):
        name = str(source)
        try:
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name}: not a file; expected an image file")
            size = status.st_size
            data = Path(source).read_bytes() if size <= limits.file_bytes else b""
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageError(f"{name}: cannot be read ({reason}); check the path") from error
    else:
        name = str(getattr(source, "name", "image from a stream"))
        data = source.read(limits.file_bytes + 1)
        size = len(data)
    if size > limits.file_bytes:
        raise ImageError(
            f"{name}: larger than {limits.file_bytes:,} bytes, the largest size that is read; save a smaller copy"
        )
    return data, name


def _parse(data: bytes, name: str, limits: Limits) -> ImageFile.ImageFile:
    """Parse the header of an image with the decoder that its first bytes choose; no pixel is decoded."""
    kind = format_of(data)
    if kind not in limits.formats:
        found = kind or (f"not an image: begins with {data[:12]!r}" if data else "empty")
        known = ", ".join(limits.formats)
        remedy = "convert it to JPEG or PNG" if data else "fetch it again or leave it out"
        raise ImageError(f"{name}: {found}; expected one of {known}; {remedy}")
    if kind == "HEIC" and not READS_HEIC:
        raise ImageError(f"{name}: {HEIC_NEEDS}; or convert it to JPEG or PNG")
    if kind == "AVIF" and not AvifImagePlugin.SUPPORTED:
        raise ImageError(f"{name}: this build of Pillow cannot read AVIF; convert it to JPEG or PNG")
    if kind == "GIF":
        _check_size(_gif_canvas(data), name, limits)
    with _decoding(name, data):
        parsed = _DECODERS[kind][1](io.BytesIO(data), name)
        if isinstance(parsed, TiffImagePlugin.TiffImageFile) and parsed.tag_v2.get(258) == (12,):
            raise ImageError(f"{name}: is a TIFF of 12 bits per pixel; save it with 8 or 16 bits per channel")
    if _reduction(parsed, len(data), limits) == 1:
        _check_size(parsed.size, name, limits)
    return parsed


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if width * height > limits.pixels or max(size) > limits.side:
        raise ImageError(
            f"{name}: {width:,} x {height:,} pixels; at most {limits.pixels:,} in all and {limits.side:,} per "
            f"side are decoded; make a smaller copy, or allow more with --max-pixels or {MOST_PIXELS}"
        )


def _reduction(parsed: ImageFile.ImageFile, file_bytes: int, limits: Limits) -> int:
    """Return the number by which the sides of an image are divided as it is decoded.

    It is 2, 4 or 8 for a JPEG that would be too large, else 1. A progressive JPEG is never divided: its coefficients
    take the same memory at any size of the result.
    """
    width, height = parsed.size
    pixels = width * height
    if parsed.format != "JPEG" or not limits.reduced or "progressive" in parsed.info:
        return 1
    if pixels <= limits.pixels or pixels > _PIXELS_A_BYTE * file_bytes:
        return 1
    return next(
        (scale for scale in (2, 4, 8) if -(-width // scale) * -(-height // scale) <= limits.pixels), 1
    )


def _parse_to_decode(data: bytes, name: str, limits: Limits) -> ImageFile.ImageFile:
    """Return `_parse(...)`, set to be decoded smaller if the image would be too large."""
    parsed = _parse(data, name, limits)
    scale = _reduction(parsed, len(data), limits)
    if scale > 1:
        parsed.draft(None, (parsed.width // scale, parsed.height // scale))
    return parsed


def _gif_canvas(data: bytes) -> tuple[int, int]:
    """Return the width and height of a GIF, grown to hold its first frame; Pillow would warn when it grows it."""

    def number(offset: int) -> int:
        return int.from_bytes(data[offset : offset + 2], "little")

    width, height, flags = number(6), number(8), data[10] if len(data) > 10 else 0
    at = 13 + (3 << flags % 8 + 1 if flags & 0x80 else 0)  # header and palette
    while (block := re.compile(rb"[!,;]").search(data, at)) is not None and block[0] != b";":
        at = block.end()
        if block[0] == b",":  # the first frame: left, top, width, height
            return max(width, number(at) + number(at + 4)), max(height, number(at + 2) + number(at + 6))
        at += 1  # an extension: its label, then sub-blocks up to an empty one
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return width, height


def _decode(image: Image.Image, name: str, data: bytes = b"") -> Image.Image:
    with _decoding(name, data):
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        if method is None:
            return image
        upright = image.transpose(method[0])
    # A copy that kept the orientation would be turned again by the next reader.
    upright.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return upright


def _decode_jpeg(data: bytes, parsed: ImageFile.ImageFile) -> Pixels | None:
    """Decode upright pixels with simplejpeg; None if it is not installed, for CMYK, and for any damage."""
    if simplejpeg is None or parsed.mode not in ("RGB", "L"):
        return None
    # The least sides of the result: those of the file, except for a JPEG that is read reduced.
    sides = {"min_height": parsed.height, "min_width": parsed.width} if parsed.decoderconfig else {}
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", **sides)
    except ValueError:
        return None
    if pixels.shape != (parsed.height, parsed.width, 3):
        return None
    method = _UPRIGHT.get(_orientation(parsed))
    return pixels if method is None else np.ascontiguousarray(method[1](pixels))


def _orientation(image: Image.Image) -> int:
    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
    except Exception:  # metadata may be damaged in an image that is not
        return 1
    return value if isinstance(value, int) else 1


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey, with alpha if the file names a transparent value; Pillow alone would clip at 255."""
    values = np.asarray(image)
    grey = Image.fromarray(_EIGHT_OF_SIXTEEN_BITS[values])
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = np.where(values == transparent, np.uint8(0), np.uint8(255))
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _name(image: Image.Image) -> str:
    opened_from = str(getattr(image, "filename", ""))
    return opened_from or f"image of {image.width} x {image.height} pixels ({image.mode})"


@contextlib.contextmanager
def _decoding(name: str, data: bytes = b"") -> Iterator[None]:
    """Turn the exceptions of a decoder into `ImageError`: damaged data raises any type, not only OSError.

    data: the whole file, if it is known; the message says "truncated" if it lacks its end.
    """
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_cut(data, str(format_of(data))):
            reason = f"truncated: {reason}"
        raise ImageError(
            f"{name}: damaged or not readable ({reason}); fetch it again or leave it out"
        ) from error
