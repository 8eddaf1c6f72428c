"""Image files of every kind, made by code, and what must become of each.

Nothing comes from outside: Pillow writes what it can, and the rest is written byte by byte.
"""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

try:
    import pillow_heif
except ImportError:  # the extra `heic`
    pillow_heif = None  # type: ignore[assignment]

READ = "read"
TRUNCATED = "truncated image"
DAMAGED = "damaged image"
NOT_AN_IMAGE = "not an image"
EMPTY = "empty image"
TOO_LARGE = "image too large"
UNKNOWN_RANGE = "pixels of unknown range"
FORMAT_NOT_READ = "format not read"

Fate = tuple[str, ...]
"""What may become of a file: "read", or a reason. Several where only damage decides which."""

WIDTH, HEIGHT = 48, 32


@dataclass(frozen=True)
class Picture:
    """One image file.

    kind: a row of the summary table. name: without folder and suffix. looks: whether what is decoded must look
    like `drawing(number)`, checked by the tests of this module.
    """

    kind: str
    name: str
    suffix: str
    data: bytes
    fate: Fate
    number: int = 0
    looks: bool = False


def drawing(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Return a smooth picture without symmetry, another one for each number."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    draw = random.Random(number)
    base = [draw.uniform(0.1, 0.5) for _ in range(3)]
    levels = np.stack(
        [
            base[0] + 0.45 * x,
            base[1] + 0.45 * y,
            base[2] + 0.4 * np.hypot(x - draw.random(), y - draw.random()),
        ],
        axis=-1,
    )
    return Image.fromarray((levels * 255).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


Make = Callable[[Image.Image], bytes]
"""The file of a drawing."""


def _saves(kind: str, mode: str | None = None, **options: object) -> Make:
    def make(image: Image.Image) -> bytes:
        return encoded(image if mode is None else image.convert(mode), kind, **options)

    return make


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    return image


def _frames(kind: str, **options: object) -> Make:
    def make(image: Image.Image) -> bytes:
        other = image.transpose(Image.Transpose.ROTATE_180)
        return encoded(image, kind, save_all=True, append_images=[other], **options)

    return make


# ---- JPEG


def exif(orientation: object = None, **tags: object) -> bytes:
    data = Image.Exif()
    if orientation is not None:
        data[0x0112] = orientation
    for name, value in tags.items():
        data[int(name[1:], 16)] = value
    return bytes(data.tobytes())


def _turned(orientation: int) -> Make:
    """A JPEG that must be turned by its EXIF orientation to look like the drawing."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }

    def make(image: Image.Image) -> bytes:
        stored = image.transpose(undo[orientation]) if orientation in undo else image
        return encoded(stored, "JPEG", exif=exif(orientation), quality=92)

    return make


def _raw_exif(payload: bytes) -> Make:
    def make(image: Image.Image) -> bytes:
        return encoded(image, "JPEG", exif=b"Exif\0\0" + payload, quality=92)

    return make


def ifd(entries: list[tuple[int, int, int, bytes]], following: int = 0, at: int = 8) -> bytes:
    """A little-endian EXIF block with one directory; each entry is (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return (
        b"II*\0"
        + struct.pack("<I", at)
        + struct.pack("<H", len(entries))
        + body
        + struct.pack("<I", following)
    )


def uniform_jpeg(width: int, height: int, *, colour: bool = False) -> bytes:
    """A grey JPEG of any size, written without its pixels: every block is the same few bits.

    A block of middle grey is a difference of 0 (`00`) and the end of the block (`1010`) in the standard Huffman
    tables; in colour, a unit of 16 x 16 pixels is four of these and two of chroma (`00` and `00` each).
    """
    small = encoded(Image.new("RGB" if colour else "L", (16, 16), (128,) * 3 if colour else 128), "JPEG")
    frame = small.index(b"\xff\xc0") + 5
    scan = small.index(b"\xff\xda")
    start = scan + 2 + struct.unpack(">H", small[scan + 2 : scan + 4])[0]
    side = 16 if colour else 8
    units = -(-width // side) * -(-height // side)
    unit = b"\x28\xa2\x8a\x00" if colour else b"\x28\xa2\x8a"  # of grey, four blocks
    bits = unit * (units if colour else -(-units // 4))
    header = small[:frame] + struct.pack(">HH", height, width) + small[frame + 4 : start]
    return header + bits + b"\xff\xd9"


def _jpegs() -> Iterator[tuple[str, str, Make]]:
    plain = _saves("JPEG", quality=92)
    for suffix in ("jpg", "jpeg", "JPG", "Jpeg", "jpe", "jfif", "JFIF", "JPE"):
        yield f"baseline {suffix}", suffix, plain
    yield "progressive", "jpg", _saves("JPEG", progressive=True, quality=92)
    yield "optimised", "jpg", _saves("JPEG", optimize=True, quality=92)
    yield "quality 100", "jpg", _saves("JPEG", quality=100)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield f"subsampling {subsampling}", "jpg", _saves("JPEG", subsampling=subsampling, quality=92)
    yield "stored as RGB", "jpg", _saves("JPEG", keep_rgb=True, quality=92)
    yield "CMYK", "jpg", _saves("JPEG", "CMYK", quality=92)
    yield "restart markers each block", "jpg", _saves("JPEG", restart_marker_blocks=1, quality=92)
    yield "restart markers each row", "jpg", _saves("JPEG", restart_marker_rows=1, quality=92)
    yield "comment", "jpg", _saves("JPEG", comment=b"\xff\xd8\0 a comment", quality=92)
    yield "resolution", "jpg", _saves("JPEG", dpi=(72, 72), quality=92)
    for orientation in range(1, 9):
        yield f"orientation {orientation}", "jpg", _turned(orientation)
    for orientation in (0, 9, 255, 65535):
        yield f"orientation {orientation} that does not exist", "jpg", _turned(orientation)
    for suffix in ("jpg", "mpo", "MPO"):
        yield f"two pictures in one {suffix}", suffix, _frames("MPO")
    yield "bytes behind the end", "jpg", lambda image: plain(image) + b"\0" * 999 + b"\xff\xd8\xff"
    yield (
        "filled between segments",
        "jpg",
        lambda image: plain(image).replace(b"\xff\xda", b"\xff\xff\xff\xda", 1),
    )


def _grey_jpegs() -> Iterator[tuple[str, str, Make]]:
    yield "grey", "jpg", _saves("JPEG", "L", quality=92)
    yield "grey and progressive", "jpg", _saves("JPEG", "L", progressive=True, quality=92)


# ---- PNG


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes, interlaced: int = 0
) -> bytes:
    """A PNG of rows that have their filter bytes already."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def _rows(levels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in levels)


def _interlaced(image: Image.Image) -> bytes:
    levels = np.asarray(image)
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(_rows(levels[top::down, left::right]) for top, left, down, right in passes)
    return png(*image.size, 8, 2, rows, interlaced=1)


def _sixteen_bits(mode: str) -> Make:
    colour = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[mode]

    def make(image: Image.Image) -> bytes:
        levels = np.asarray(image.convert(mode)).astype(">u2") * 257
        return png(*image.size, 16, colour, _rows(levels.reshape(image.height, -1)))

    return make


def _png_bits(bits: int) -> Make:
    """Grey of 1, 2 or 4 bits."""

    def make(image: Image.Image) -> bytes:
        levels = np.asarray(image.convert("L")) >> (8 - bits)
        spread = (levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(spread.reshape(image.height, -1).astype(np.uint8), axis=1)
        return png(*image.size, bits, 0, _rows(packed))

    return make


def _palette(colours: int) -> Make:
    def make(image: Image.Image) -> bytes:
        return encoded(image.quantize(colours), "PNG")

    return make


def _with_chunks(*extra: bytes) -> Make:
    def make(image: Image.Image) -> bytes:
        return png(*image.size, 8, 2, _rows(np.asarray(image).reshape(image.height, -1)), *extra)

    return make


def _text_chunk(image: Image.Image) -> bytes:
    said = PngImagePlugin.PngInfo()
    said.add_text("parameters", "a red bicycle, 8k" * 50, zip=True)
    said.add_itxt("Title", "Ein Bild \N{SNOWMAN}", "de", "Titel", zip=True)
    return encoded(image, "PNG", pnginfo=said)


def _many_idat(image: Image.Image) -> bytes:
    whole = _with_chunks()(image)
    at = whole.index(b"IDAT")
    length = struct.unpack(">I", whole[at - 4 : at])[0]
    data = whole[at + 4 : at + 4 + length]
    parts = b"".join(chunk(b"IDAT", data[start : start + 7]) for start in range(0, len(data), 7))
    return whole[: at - 4] + parts + whole[at + 8 + length :]


def _pngs() -> Iterator[tuple[str, str, Make]]:
    for suffix in ("png", "PNG", "apng"):
        yield f"RGB {suffix}", suffix, _saves("PNG")
    yield "RGBA", "png", lambda image: encoded(_with_alpha(image), "PNG")
    yield "interlaced", "png", _interlaced
    yield "palette of 256", "png", _palette(256)
    yield "palette of 16", "png", _palette(16)
    yield "RGB, 16 bits", "png", _sixteen_bits("RGB")
    yield "RGBA, 16 bits", "png", _sixteen_bits("RGBA")
    yield "one transparent colour", "png", _with_chunks(chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    yield (
        "gamma, physical size, time",
        "png",
        _with_chunks(
            chunk(b"gAMA", struct.pack(">I", 45455)),
            chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
            chunk(b"tIME", bytes(7)),
        ),
    )
    yield "unknown chunk", "png", _with_chunks(chunk(b"abCd", b"what is this"))
    yield "texts", "png", _text_chunk
    yield "many chunks of data", "png", _many_idat
    yield "animated", "png", _frames("PNG")
    yield "bytes behind the end", "png", lambda image: encoded(image, "PNG") + b"\0" * 77
    yield "not compressed", "png", _saves("PNG", compress_level=0)


def _grey_pngs() -> Iterator[tuple[str, str, Make]]:
    yield "grey", "png", _saves("PNG", "L")
    yield "grey with alpha", "png", lambda image: encoded(_with_alpha(image).convert("LA"), "PNG")
    yield "grey, 4 bits", "png", _png_bits(4)
    yield "grey, 2 bits", "png", _png_bits(2)
    yield "grey, 16 bits", "png", _sixteen_bits("L")
    yield "grey with alpha, 16 bits", "png", _sixteen_bits("LA")


def _one_bit() -> Iterator[tuple[str, str, Make]]:
    yield "1 bit by hand", "png", _png_bits(1)
    yield "1 bit", "png", _saves("PNG", "1")
    yield "1 bit", "tif", _saves("TIFF", "1")
    yield "1 bit", "bmp", _saves("BMP", "1")
    yield "1 bit, fax", "tif", _saves("TIFF", "1", compression="group4")
    yield "1 bit, old fax", "tiff", _saves("TIFF", "1", compression="group3")
    yield "two colours", "gif", _saves("GIF", "1")


# ---- TIFF


def tiff(
    width: int,
    height: int,
    samples: bytes,
    tags: dict[int, int | tuple[int, ...]],
    *,
    order: str = "<",
    tiled: bool = False,
) -> bytes:
    """A TIFF of one strip or tile; `tags` beside the width, the height and the place of the data."""
    strips = {324: 8, 325: len(samples)} if tiled else {273: 8, 278: height, 279: len(samples)}
    all_tags: dict[int, int | tuple[int, ...]] = {256: width, 257: height, **strips, **tags}
    long_values = b""
    entries = b""
    after = 8 + len(samples) + len(samples) % 2
    first = after + 2 + 12 * len(all_tags) + 4
    for tag in sorted(all_tags):
        value = all_tags[tag]
        if isinstance(value, tuple):
            packed = struct.pack(f"{order}{len(value)}H", *value)
            if len(packed) > 4:
                entries += struct.pack(f"{order}HHII", tag, 3, len(value), first + len(long_values))
                long_values += packed
            else:
                entries += struct.pack(f"{order}HHI", tag, 3, len(value)) + packed.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, after)
    directory = struct.pack(f"{order}H", len(all_tags)) + entries + bytes(4)
    return head + samples + bytes(len(samples) % 2) + directory + long_values


def _tiff_of(order: str = "<", tiled: bool = False) -> Make:
    def make(image: Image.Image) -> bytes:
        tags: dict[int, int | tuple[int, ...]] = {258: (8, 8, 8), 259: 1, 262: 2, 277: 3}
        data = np.asarray(image)
        if tiled:  # one tile, larger than the image
            data = np.zeros((64, 64, 3), np.uint8)
            data[: image.height, : image.width] = np.asarray(image)
            tags |= {322: 64, 323: 64}
        return tiff(*image.size, data.tobytes(), tags, order=order, tiled=tiled)

    return make


def _tiffs() -> Iterator[tuple[str, str, Make]]:
    for suffix in ("tif", "tiff", "TIF"):
        yield f"RGB {suffix}", suffix, _saves("TIFF")
    for compression in (
        "tiff_lzw",
        "tiff_deflate",
        "tiff_adobe_deflate",
        "packbits",
        "jpeg",
        "tiff_lzma",
        "zstd",
    ):
        yield f"compressed by {compression}", "tif", _saves("TIFF", compression=compression)
    yield "big-endian", "tif", _tiff_of(">")
    yield "tiled", "tif", _tiff_of(tiled=True)
    yield "BigTIFF", "tif", _saves("TIFF", big_tiff=True)
    yield "RGBA", "tif", lambda image: encoded(_with_alpha(image), "TIFF")
    yield "palette", "tif", lambda image: encoded(image.quantize(200), "TIFF")
    yield "CMYK", "tif", _saves("TIFF", "CMYK")
    yield "YCbCr", "tif", _saves("TIFF", "YCbCr", compression="jpeg")
    yield "several pages", "tif", _frames("TIFF")
    for orientation in (3, 6, 8):
        yield f"orientation {orientation}", "tif", _turned_tiff(orientation)


def _turned_tiff(orientation: int) -> Make:
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}

    def make(image: Image.Image) -> bytes:
        said = TiffImagePlugin.ImageFileDirectory_v2()
        said[274] = orientation
        return encoded(image.transpose(undo[orientation]), "TIFF", tiffinfo=said)

    return make


def _grey_tiffs() -> Iterator[tuple[str, str, Make]]:
    yield "grey", "tif", _saves("TIFF", "L")
    yield "grey with alpha", "tif", lambda image: encoded(_with_alpha(image).convert("LA"), "TIFF")
    yield "grey, 16 bits", "tif", _grey_16_tiff
    yield (
        "grey, 16 bits, compressed",
        "tif",
        lambda image: encoded(
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
            "TIFF",
            compression="tiff_lzw",
        ),
    )


def _grey_16_tiff(image: Image.Image) -> bytes:
    levels = np.asarray(image.convert("L")).astype(">u2") * 257
    return tiff(*image.size, levels.tobytes(), {258: 16, 259: 1, 262: 1, 277: 1}, order=">")


def _refused() -> Iterator[tuple[str, str, Make, str]]:
    yield "32-bit integers", "tif", _saves("TIFF", "I"), UNKNOWN_RANGE
    yield "floating point", "tif", _saves("TIFF", "F"), UNKNOWN_RANGE
    yield (
        "12 bits",
        "tif",
        lambda image: tiff(
            *image.size, bytes(image.width * image.height * 3 // 2), {258: 12, 259: 1, 262: 1, 277: 1}
        ),
        UNKNOWN_RANGE,
    )


# ---- the other formats


def _others() -> Iterator[tuple[str, str, str, Make]]:
    yield "GIF", "static", "gif", _saves("GIF")
    yield "GIF", "animated", "gif", _frames("GIF", duration=100, loop=0)
    yield "GIF", "interlaced", "GIF", _saves("GIF", interlace=1)
    yield "GIF", "transparent", "gif", lambda image: encoded(image.quantize(64), "GIF", transparency=63)
    yield "GIF", "a comment", "gif", _saves("GIF", comment=b"c" * 300)
    yield "WebP", "lossy", "webp", _saves("WEBP", quality=90)
    yield "WebP", "lossless", "webp", _saves("WEBP", lossless=True)
    yield "WebP", "with alpha", "webp", lambda image: encoded(_with_alpha(image), "WEBP", lossless=True)
    yield "WebP", "animated", "WEBP", _frames("WEBP", duration=100, lossless=True)
    yield "WebP", "with EXIF", "webp", _saves("WEBP", exif=exif(1), quality=90)
    yield "AVIF", "lossy", "avif", _saves("AVIF", quality=85, max_threads=1)
    yield (
        "AVIF",
        "with alpha",
        "AVIF",
        lambda image: encoded(_with_alpha(image), "AVIF", quality=85, max_threads=1),
    )
    yield "AVIF", "animated", "avif", _frames("AVIF", duration=100, max_threads=1)
    yield "AVIF", "with EXIF", "avif", _saves("AVIF", exif=exif(1), quality=85, max_threads=1)
    yield "BMP", "24 bits", "bmp", _saves("BMP")
    yield "BMP", "24 bits", "BMP", _saves("BMP")
    yield "BMP", "32 bits", "bmp", lambda image: encoded(_with_alpha(image), "BMP")
    yield "BMP", "palette", "bmp", lambda image: encoded(image.quantize(256), "BMP")
    yield "BMP", "top row first", "bmp", lambda image: bmp(image, 40, top_first=True)
    yield "BMP", "header of OS 2", "bmp", lambda image: bmp(image, 12)
    yield "BMP", "16 bits, 5-6-5", "bmp", _bmp_565


def bmp(image: Image.Image, header: int, *, top_first: bool = False) -> bytes:
    """A BMP of 24 bits with a header of 12 (OS/2) or 40 bytes."""
    levels = np.asarray(image)[:, :, ::-1]
    stored = levels if top_first else levels[::-1]
    width, height = image.size
    rows = b"".join(row.tobytes() + bytes(-3 * width % 4) for row in stored)
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, 24)
    else:
        sides = struct.pack("<ii", width, -height if top_first else height)
        info = struct.pack("<I", 40) + sides + struct.pack("<HHIIiiII", 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def _bmp_565(image: Image.Image) -> bytes:
    levels = np.asarray(image).astype(np.uint16)[::-1]
    packed = (levels[..., 0] >> 3 << 11) | (levels[..., 1] >> 2 << 5) | (levels[..., 2] >> 3)
    rows = packed.astype("<u2").tobytes()  # the width is even, so that rows need no filling
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, *image.size, 1, 16, 3, len(rows), 0, 0, 0, 0) + masks
    return struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def heic(image: Image.Image, **options: object) -> bytes:
    """A HEIC file; needs the extra `heic`."""
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def whole_pictures() -> Iterator[Picture]:
    """Files that are read: every format with its variants."""
    number = 0
    colour = [("JPEG", _jpegs()), ("PNG", _pngs()), ("TIFF", _tiffs())]
    grey = [("JPEG", _grey_jpegs()), ("PNG", _grey_pngs()), ("TIFF", _grey_tiffs())]
    made: list[tuple[str, str, str, Make, bool]] = []
    made += [(kind, *one, True) for kind, several in colour for one in several]
    made += [(*one, True) for one in _others()]
    made += [(kind, *one, False) for kind, several in grey for one in several]
    names = {"png": "PNG", "tif": "TIFF", "tiff": "TIFF", "bmp": "BMP", "gif": "GIF"}
    made += [(names[suffix], name, suffix, make, False) for name, suffix, make in _one_bit()]
    for kind, name, suffix, make, looks in made:
        number += 1
        if kind == "HEIC":
            continue
        yield Picture(kind, name, suffix, make(drawing(number)), (READ,), number, looks)
    for name, suffix, make, reason in _refused():
        number += 1
        yield Picture("TIFF", name, suffix, make(drawing(number)), (reason,))
    for name, width, height in (("1 x 1", 1, 1), ("1 x 10,000", 1, 10_000), ("10,000 x 1", 10_000, 1)):
        for kind, suffix in (
            ("PNG", "png"),
            ("JPEG", "jpg"),
            ("GIF", "gif"),
            ("BMP", "bmp"),
            ("TIFF", "tif"),
        ):
            number += 1
            yield Picture(
                "thin", f"{name} {kind}", suffix, encoded(drawing(number, width, height), kind), (READ,)
            )


def heic_pictures(fate: Fate) -> Iterator[Picture]:
    """HEIC as phones write it, where it can be made here."""
    if pillow_heif is None:
        return
    for number, (name, suffix) in enumerate((("a", "HEIC"), ("b", "heic"), ("c", "heif"), ("d", "hif")), 500):
        yield Picture("HEIC", f"IMG {name}", suffix, heic(drawing(number), quality=90), fate, number, True)
    yield Picture("HEIC", "IMG e", "jpg", heic(drawing(510), quality=90), fate, 510, True)


@functools.cache
def seeds() -> dict[str, bytes]:
    """One file of each format, to be cut, damaged and renamed."""
    image = drawing(900)
    return {
        "jpg": encoded(image, "JPEG", quality=90),
        "progressive.jpg": encoded(image, "JPEG", quality=90, progressive=True),
        "png": encoded(image, "PNG"),
        "palette.png": encoded(image.quantize(32), "PNG"),
        "gif": encoded(image, "GIF"),
        "bmp": encoded(image, "BMP"),
        "webp": encoded(image, "WEBP", quality=90),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "tif": encoded(image, "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "avif": encoded(image, "AVIF", max_threads=1),
    }
