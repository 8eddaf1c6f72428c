"""What is no image, too large or damaged is refused: by name, with a remedy, before it costs anything."""

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.decoding import Limits, open_image, read_rgb
from diptych.errors import ImageError, SettingsError
from tests.data.image_files import drawing, encoded, heic, patched, png, tiff


def bombs(width: int, height: int) -> dict[str, bytes]:
    """Small files that declare a large size."""
    small = {kind: encoded(drawing(), kind) for kind in ("JPEG", "GIF", "BMP")}
    jpeg_size = small["JPEG"].index(b"\xff\xc0") + 5
    frame = small["GIF"].index(b",", 13 + 3 * 256)
    webp = encoded(drawing(), "WEBP", lossless=True)
    sides = webp.index(b"VP8L") + 9  # 14 bits each, less one
    little, big = struct.pack("<HH", width, height), struct.pack(">HH", height, width)
    return {
        "PNG of bits": png(width, height, 1, 0, None),
        "PNG of 16 bits": png(width, height, 16, 6, None),
        "JPEG": patched(small["JPEG"], jpeg_size, big),
        "GIF": patched(small["GIF"], 6, little),
        "GIF whose frame is larger": patched(small["GIF"], frame + 5, little),
        "BMP": patched(small["BMP"], 18, struct.pack("<ii", width, height)),
        "WebP": patched(webp, sides, struct.pack("<I", width - 1 | (height - 1) << 14)),
        "TIFF": tiff(width, height, 8, bytes(4)),
    }


# Above our limit; above Pillow's warning, which would be in the message, since warnings are errors here.
@pytest.mark.parametrize("size", [(7100, 7100), (11000, 10000)])
def test_too_many_pixels_are_refused_before_decoding_and_without_a_warning(size: tuple[int, int]) -> None:
    for data in bombs(*size).values():
        with pytest.raises(ImageError, match=f"{size[0]:,} x {size[1]:,} pixels; at most 50,000,000"):
            open_image(data)


def test_a_large_jpeg_is_read_smaller_only_where_the_file_can_hold_such_an_image() -> None:
    blank = np.zeros((500, 500, 3), np.uint8)
    data = encoded(Image.fromarray(blank), "JPEG")
    limits = Limits(pixels=100_000)
    assert read_rgb(data, limits=limits).shape == (250, 250, 3)
    assert open_image(data, limits).size == (250, 250)
    size = data.index(b"\xff\xc0") + 5
    bomb = patched(data, size, struct.pack(">HH", 2000, 2000))
    assert len(bomb) * 512 < 2000 * 2000
    for reduced, found in ((True, bomb), (False, data)):
        with pytest.raises(ImageError, match="pixels; at most 100,000"):
            read_rgb(found, limits=Limits(pixels=100_000, reduced=reduced))


def test_a_large_progressive_jpeg_is_refused() -> None:
    data = encoded(drawing(400, 400), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="400 x 400 pixels; at most 100,000"):
        read_rgb(data, limits=Limits(pixels=100_000))


def test_the_environment_allows_more_pixels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(8000, 8000, 1, 0, bytes(8000 * 1000))
    with pytest.raises(
        ImageError, match=r"at most 50,000,000 .*; make a smaller copy, or allow more with --max-pix"
    ):
        open_image(data)
    monkeypatch.setenv("DIPTYCH_MAX_PIXELS", "64_000_000")
    assert open_image(data).size == (8000, 8000)
    for wrong in ("many", "-1", "0"):
        monkeypatch.setenv("DIPTYCH_MAX_PIXELS", wrong)
        with pytest.raises(SettingsError, match=f"DIPTYCH_MAX_PIXELS={wrong}: expected a number of pixels"):
            open_image(data)


def test_pillows_own_limit_is_no_other_error() -> None:
    for data in bombs(16000, 16000).values():
        with pytest.raises(ImageError, match=r"16,000 x 16,000 pixels|256000000 pixels"):
            open_image(data)


def test_a_very_long_side_is_refused() -> None:
    with pytest.raises(ImageError, match=r"2,000,000 x 1 pixels.*1,000,000 per side"):
        open_image(png(2_000_000, 1, 1, 0, None))


def test_limits_can_be_set() -> None:
    data = encoded(drawing(20, 10), "PNG")

    just_enough = Limits(pixels=200, file_bytes=len(data), side=20, formats=("PNG",))
    assert open_image(data, just_enough).size == (20, 10)
    for limits in (
        Limits(pixels=199),
        Limits(file_bytes=len(data) - 1),
        Limits(side=19),
        Limits(formats=("JPEG", "WebP")),
    ):
        with pytest.raises(ImageError):
            open_image(data, limits)


def test_too_large_a_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(100_000_001)  # sparse

    with pytest.raises(ImageError, match=r"huge\.jpg: larger than 100,000,000 bytes"):
        open_image(path)


def test_an_endless_stream_is_refused() -> None:
    with (
        open("/dev/zero", "rb") as stream,
        pytest.raises(ImageError, match="/dev/zero: larger than 1,000 bytes"),
    ):
        open_image(stream, Limits(file_bytes=1000))


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body>404</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"P6 1 1 255\n\0\0\0",
        b"\0\0\0\x18ftypmp42" + bytes(40),
        encoded(Image.new("RGB", (2, 2)), "JPEG2000"),
        encoded(Image.new("RGB", (2, 2)), "TGA"),
        encoded(Image.new("RGB", (16, 16)), "ICO"),
    ],
)
def test_other_formats_are_refused_by_name_with_a_remedy(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)

    with pytest.raises(
        ImageError, match=r"photo\.jpg: .*expected one of JPEG, PNG.*convert it to JPEG or PNG"
    ):
        open_image(path)


def test_an_empty_file_is_not_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(
        ImageError, match=r"photo\.jpg: empty; expected one of JPEG, .*fetch it again or leave it out"
    ):
        open_image(tmp_path / "photo.jpg")


def test_places_without_a_file_are_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # reading one would wait for ever
    for source in (tmp_path / "missing.jpg", tmp_path, tmp_path / "pipe.jpg", "nul\0.jpg"):
        with pytest.raises(ImageError) as caught:
            open_image(source)
        assert str(source) in str(caught.value)


ENCODERS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(drawing(), "JPEG"),
    "progressive JPEG": lambda: encoded(drawing(), "JPEG", progressive=True),
    "CMYK JPEG": lambda: encoded(drawing().convert("CMYK"), "JPEG"),
    "PNG": lambda: encoded(drawing(), "PNG"),
    "palette PNG": lambda: encoded(drawing().quantize(64), "PNG", transparency=3),
    "WebP": lambda: encoded(drawing(), "WEBP"),
    "lossless WebP": lambda: encoded(drawing(), "WEBP", lossless=True),
    "GIF": lambda: encoded(drawing(), "GIF"),
    "BMP": lambda: encoded(drawing(), "BMP"),
    "TIFF": lambda: encoded(drawing(), "TIFF"),
    "deflated TIFF": lambda: encoded(drawing(), "TIFF", compression="tiff_adobe_deflate"),
    "AVIF": lambda: encoded(drawing(), "AVIF", max_threads=1),
    "HEIC": lambda: heic(drawing()),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_truncated_files_are_refused_by_name_with_a_remedy(kind: str, tmp_path: Path) -> None:
    whole = ENCODERS[kind]()
    path = tmp_path / "cut.jpg"
    assert read_rgb(whole).shape == (32, 48, 3)
    for tenth in range(1, 10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ImageError, match=r"cut\.jpg: .*(fetch it again|convert it)"):
            read_rgb(path)


def test_a_truncated_pillow_image_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(ENCODERS["PNG"]()[:300])

    with Image.open(path) as opened, pytest.raises(ImageError, match=r"cut\.png.*fetch it again"):
        read_rgb(opened)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """`data` with a few bytes changed, lost, repeated or moved."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        at, length = draw.randrange(len(result)), draw.randint(1, 8)
        piece = result[at : at + length]
        match draw.randrange(4):
            case 0:
                result[at : at + length] = draw.randbytes(len(piece))
            case 1:
                del result[at + 12 : at + 12 + length]
            case 2:
                result[at:at] = piece
            case 3:
                result[at : at + 4] = b"\xff" * len(result[at : at + 4])
    return bytes(result)


def check_damage(kind: str, count: int, seed: int) -> None:
    """Damaged files either still give an image within the limits, or an ImageError: nothing else."""
    whole, draw = ENCODERS[kind](), random.Random(f"{kind} {seed}")
    limits = Limits(pixels=1_000_000)
    refused = 0
    for _ in range(count):
        try:
            pixels = read_rgb(damaged(whole, draw), limits=limits)
        except ImageError:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
            assert pixels.size <= 3 * limits.pixels
    assert refused > 0


@pytest.mark.parametrize("kind", ENCODERS)
def test_damage_gives_an_image_or_an_image_error(kind: str) -> None:
    check_damage(kind, count=60, seed=0)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ENCODERS)
def test_much_damage_gives_an_image_or_an_image_error(kind: str) -> None:
    check_damage(kind, count=1700, seed=1)
