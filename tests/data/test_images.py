"""docs/images.md, item by item, on pixels that are known exactly."""

import io
import struct
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image, ImageSequence

from diptych.data.images import decoding
from diptych.data.images.decoding import Pixels, open_image, read_rgb, to_rgb
from diptych.errors import ImageError
from tests.data.image_files import chunk, drawing, encoded, heic, patched, png, tiff

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
Value = TypeVar("Value", int, tuple[int, ...])  # a pixel: one number, or one for each channel


def row(mode: str, *values: Value) -> Image.Image:
    """An image of one row."""
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def one_row(source: Image.Image | bytes, background: decoding.Colour = WHITE) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in read_rgb(source, background)[0].tolist()]


# EXIF orientation


def stored(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores for a picture that looks like `upright`: the table of EXIF 2.3, pixel by pixel.

    The table names the visual side on which the first stored row and the first stored column lie.
    """
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    height, width, _ = upright.shape
    swapped = first_row in ("left", "right")
    result = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            place = {first_row: i, first_column: j}
            y = place["top"] if "top" in place else height - 1 - place["bottom"]
            x = place["left"] if "left" in place else width - 1 - place["right"]
            result[i, j] = upright[y, x]
    return result


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_becomes_upright(orientation: int, kind: str) -> None:
    upright = noise(5, 3)
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(stored(upright, orientation)), kind, exif=exif.tobytes(), **options)

    assert np.array_equal(read_rgb(data), upright)
    assert np.array_equal(read_rgb(Image.open(io.BytesIO(data))), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_of_a_jpeg_becomes_upright_in_both_decoders(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Image.fromarray(stored(np.array(drawing(40, 24)), orientation))
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    plain = np.array(Image.open(io.BytesIO(encoded(camera, "JPEG", quality=95))))
    data = encoded(camera, "JPEG", quality=95, exif=exif.tobytes())

    fast = read_rgb(data)
    monkeypatch.setattr(decoding, "simplejpeg", None)

    assert fast.shape == (24, 40, 3)
    assert np.array_equal(stored(fast, orientation), plain)
    assert np.array_equal(read_rgb(data), fast)


def test_an_upright_image_is_not_turned_again() -> None:
    upright = noise(5, 3)
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    opened = open_image(encoded(Image.fromarray(stored(upright, 6)), "PNG", exif=exif.tobytes()))

    assert np.array_equal(np.array(open_image(opened)), upright)


def test_unreadable_exif_leaves_the_picture_as_it_lies() -> None:
    image = drawing()
    data = encoded(image, "PNG", exif=b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff")

    assert np.array_equal(read_rgb(data), np.array(image))


# JPEG


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 100}, {"quality": 5}])
@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "grey", "without colour transform"])
def test_simplejpeg_and_pillow_decode_the_same_pixels(kind: str, options: dict[str, object]) -> None:
    image = Image.fromarray(noise(37, 29))
    if kind == "grey":
        data = encoded(image.convert("L"), "JPEG", **options)
    elif kind == "without colour transform":
        data = encoded(image, "JPEG", keep_rgb=True, **options)
    else:
        data = encoded(image, "JPEG", subsampling=kind, **options)

    assert np.array_equal(read_rgb(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def test_of_a_jpeg_with_several_pictures_the_first_is_read() -> None:
    first, second = drawing(), drawing().transpose(Image.Transpose.ROTATE_180)
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)

    assert np.array_equal(read_rgb(data), read_rgb(encoded(first, "JPEG", quality=95)))


# Colour models


def test_cmyk_becomes_rgb() -> None:
    pixels = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 102)]
    expected = [WHITE, (0, 255, 255), (255, 0, 255), (255, 255, 0), BLACK, (153, 153, 153)]

    assert one_row(encoded(row("CMYK", *pixels), "TIFF")) == expected


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (51, 102, 153, 0)])
def test_cmyk_jpeg_becomes_rgb(ink: tuple[int, int, int, int]) -> None:
    found = read_rgb(encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100))
    cyan, magenta, yellow, key = ink

    expected = [(255 - colour) * (255 - key) / 255 for colour in (cyan, magenta, yellow)]
    assert np.abs(found - np.array(expected)).max() <= 1


def test_ycck_jpeg_becomes_rgb() -> None:
    # Declaring the four inks of a CMYK file to be Y, Cb, Cr and K makes a YCCK file of known content. In the
    # file lies the inverse of each ink, as Adobe writes them.
    y, cb, cr, key = (255 - ink for ink in (80, 140, 90, 40))
    data = encoded(Image.new("CMYK", (16, 16), (80, 140, 90, 40)), "JPEG", quality=100)
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    found = read_rgb(patched(data, adobe + 11, b"\2"))

    stored_inks = [  # libjpeg: YCC to RGB, of which CMY is the inverse
        255 - (y + 1.402 * (cr - 128)),
        255 - (y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)),
        255 - (y + 1.772 * (cb - 128)),
    ]
    expected = [min(max(ink, 0), 255) * key / 255 for ink in stored_inks]
    assert np.abs(found - np.array(expected)).max() <= 2


def test_grey_of_16_bits_keeps_its_range() -> None:
    values = [0, 128, 129, 257, 1000, 40000, 65406, 65407, 65535]
    samples = struct.pack(f">{len(values)}H", *values)

    found = one_row(png(len(values), 1, 16, 0, samples))

    assert found == [(level,) * 3 for level in (0, 0, 1, 1, 4, 156, 254, 255, 255)]
    assert found == [(round(value / 257),) * 3 for value in values]
    little_endian = struct.pack(f"<{len(values)}H", *values)
    assert one_row(tiff(len(values), 1, 16, little_endian)) == found


def test_the_transparent_value_of_16_bit_grey_shows_the_background() -> None:
    data = png(2, 1, 16, 0, struct.pack(">2H", 1000, 1001), chunk(b"tRNS", struct.pack(">H", 1000)))

    assert one_row(data, background=RED) == [RED, (4, 4, 4)]


def test_colour_of_16_bits_keeps_its_range() -> None:
    data = png(2, 1, 16, 2, struct.pack(">6H", 40000, 1000, 257, 65535, 65535, 0))

    assert one_row(data) == [(156, 3, 1), (255, 255, 0)]


def test_grey_and_colour_of_16_bits_with_alpha_show_the_background() -> None:
    grey = png(2, 1, 16, 4, struct.pack(">4H", 40000, 65535, 40000, 0))
    colour = png(2, 1, 16, 6, struct.pack(">8H", 40000, 257, 0, 65535, 40000, 257, 0, 0))

    assert one_row(grey, background=BLUE) == [(156, 156, 156), BLUE]
    assert one_row(colour, background=BLUE) == [(156, 1, 0), BLUE]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(Image.new("I", (2, 2), 70000), "TIFF"), "32-bit integers"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating point"),
        (tiff(2, 1, 16, bytes(4), sample_format=2), "32-bit integers"),
        (tiff(2, 1, 12, bytes(3)), "12 bits"),
    ],
    ids=["integers", "floats", "signed", "12 bits"],
)
def test_pixels_without_a_known_range_are_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(data)

    with pytest.raises(ImageError, match=rf"scan\.tif.*{reason}.*save it with 8 or 16 bits"):
        read_rgb(path)


def test_palette_becomes_its_colours() -> None:
    image = row("P", 0, 1, 2, 1)
    image.putpalette([*RED, *GREEN, 10, 20, 30])

    for kind in ("PNG", "GIF", "BMP"):
        assert one_row(encoded(image, kind)) == [RED, GREEN, (10, 20, 30), GREEN]


def test_bits_become_black_and_white() -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        assert one_row(encoded(row("1", 0, 255, 255, 0), kind)) == [BLACK, WHITE, WHITE, BLACK]


def test_grey_becomes_equal_channels() -> None:
    assert one_row(encoded(row("L", 0, 7, 255), "PNG")) == [BLACK, (7, 7, 7), WHITE]


# Transparency


@pytest.mark.parametrize("background", [WHITE, (10, 200, 90)])
def test_alpha_mixes_with_the_background_in_proportion(background: decoding.Colour) -> None:
    pixels = noise(64, 64, channels=4)
    colour, alpha = pixels[..., :3].astype(float), pixels[..., 3:] / 255

    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = read_rgb(encoded(Image.fromarray(pixels), kind, **options), background)
        exact = colour * alpha + np.array(background) * (1 - alpha)
        assert np.abs(found - exact).max() <= 0.51  # rounded to the nearest level


def test_transparent_parts_are_white_unless_asked_otherwise() -> None:
    assert one_row(encoded(row("RGBA", (255, 0, 0, 0), (255, 0, 0, 255)), "PNG")) == [WHITE, RED]


def test_grey_with_alpha_shows_the_background() -> None:
    assert one_row(encoded(row("LA", (9, 255), (9, 0)), "PNG"), background=GREEN) == [(9, 9, 9), GREEN]


def test_palette_with_alpha_shows_the_background() -> None:
    image = row("P", 0, 1, 2)
    image.putpalette([*RED, *GREEN, *BLUE])

    several = encoded(image, "PNG", transparency=bytes([0, 255, 51]))
    assert one_row(several) == [WHITE, GREEN, (204, 204, 255)]
    for kind in ("PNG", "GIF"):
        assert one_row(encoded(image, kind, transparency=1)) == [RED, WHITE, BLUE]


def test_one_transparent_colour_shows_the_background() -> None:
    assert one_row(encoded(row("RGB", RED, GREEN), "PNG", transparency=GREEN)) == [RED, WHITE]
    assert one_row(encoded(row("L", 5, 6), "PNG", transparency=5), background=RED) == [RED, (6, 6, 6)]


# Animation, pages, sides


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 3
        assert np.array_equal(read_rgb(data), np.array(frames[0])), kind


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (1, 3000), (3000, 1)])
def test_sides_of_one_pixel_are_read(size: tuple[int, int]) -> None:
    pixels = noise(*size)
    image = Image.fromarray(pixels)

    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(read_rgb(encoded(image, kind, **options)), pixels), kind
    for kind in ("JPEG", "GIF", "AVIF"):
        assert read_rgb(encoded(image, kind)).shape == pixels.shape, kind


# Sources


def test_path_text_bytes_stream_and_pillow_image_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo"
    image = drawing()
    image.save(path, "JPEG", quality=90)
    expected = np.array(Image.open(path))

    with path.open("rb") as stream, Image.open(path) as opened:
        for source in (path, str(path), path.read_bytes(), stream, opened):
            assert np.array_equal(read_rgb(source), expected)


def test_the_format_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    drawing().save(path, "PNG")

    assert np.array_equal(read_rgb(path), np.array(drawing()))


def test_an_opaque_rgb_image_is_not_copied() -> None:
    image = drawing()

    assert to_rgb(image) is image


# HEIC


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_a_heic_becomes_upright(orientation: int) -> None:
    upright = np.asarray(drawing(96, 64))
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    data = heic(Image.fromarray(stored(upright, orientation)), exif=exif.tobytes(), quality=-1, chroma=444)
    found = read_rgb(data)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3
    assert decoding.upright_size(data) == (96, 64)
    assert decoding.read_header(data).format == decoding.format_of(data) == "HEIC"


def test_a_heic_that_names_the_container_first_is_one() -> None:
    data = heic(drawing())
    assert data[8:12] == b"heic"
    assert decoding.format_of(patched(data, 8, b"mif1")) == "HEIC"
    assert decoding.format_of(encoded(drawing(), "AVIF")) == "AVIF"


# Above the limit


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_above_the_limit_is_read_at_a_part_of_its_sides(
    scale: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawing(401, 299).convert(mode)
    data = encoded(whole, "JPEG", quality=95)
    expected = (-(-299 // scale), -(-401 // scale), 3)
    limits = decoding.Limits(pixels=expected[0] * expected[1])
    found = read_rgb(data, limits=limits)
    assert found.shape == expected
    # A block's mean, but for the rounding of the decoder and the colour's coarser grid.
    cut = np.asarray(whole.convert("RGB"), float)[: 299 // scale * scale, : 401 // scale * scale]
    means = cut.reshape(299 // scale, scale, 401 // scale, scale, 3).mean(axis=(1, 3))
    assert np.abs(found[: means.shape[0], : means.shape[1]] - means)[..., :2].mean() < 3
    assert np.array_equal(found, np.asarray(to_rgb(open_image(data, limits))))
    monkeypatch.setattr(decoding, "simplejpeg", None)
    assert np.array_equal(found, read_rgb(data, limits=limits))
    assert decoding.upright_size(data, limits) == (401, 299)
    assert (decoding.read_header(data, limits).width, decoding.read_header(data, limits).height) == (401, 299)


def test_a_jpeg_at_the_limit_is_read_as_ever() -> None:
    data = encoded(drawing(401, 299), "JPEG")
    assert np.array_equal(read_rgb(data, limits=decoding.Limits(pixels=401 * 299)), read_rgb(data))
