"""What EXIF says of a photograph, and that wrong EXIF says nothing."""

import io
import random
import struct
from datetime import datetime, timedelta, timezone

import pytest
from PIL import Image

from diptych.data.images.photograph import Photograph, photograph
from tests.data.image_files import drawing, encoded, heic
from tests.photograph_files import MAKE, TIMES, exif_of, photograph_file, table

SAID = Photograph(
    datetime(2024, 6, 1, 14, 30, 5, 250_000, timezone(timedelta(hours=2))),
    "Apple iPhone 15",
    47.376667,
    -8.540167,
)


def full_exif() -> Image.Exif:
    """Return EXIF with the values of SAID."""
    return exif_of(
        taken="2024:06:01 14:30:05",
        offset="+02:00",
        fraction="25",
        make="Apple",
        model="iPhone 15",
        place=(47.376667, -8.540167),
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "AVIF"])
def test_date_camera_and_place_are_read_from_every_format(kind: str) -> None:
    assert photograph(photograph_file(full_exif(), kind=kind)) == SAID


def test_a_heic_photograph_is_read_as_well() -> None:
    assert photograph(heic(drawing(), exif=full_exif().tobytes())) == SAID


def test_a_tiff_is_its_own_exif() -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "TIFF", tiffinfo={271: "Canon", 272: "Canon EOS R5"})
    assert photograph(file.getvalue()) == Photograph(camera="Canon EOS R5")


def test_big_endian_exif_is_read() -> None:
    entry = struct.pack(">HHI4s", MAKE, 2, 4, b"Leic")
    assert photograph(photograph_file(b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0" * 4)).camera == "Leic"


@pytest.mark.parametrize("data", [encoded(drawing(), "JPEG"), encoded(drawing(), "PNG"), b"no image", b""])
def test_an_image_without_exif_says_nothing(data: bytes) -> None:
    assert photograph(data) == Photograph()


@pytest.mark.parametrize(
    "taken",
    [
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "2024:13:01 00:00:00",
        "2024:02:30 00:00:00",
        "2024:06:01 24:61:00",
        "1601:01:01 00:00:00",
        "yesterday",
        "",
    ],
)
def test_a_date_that_cannot_be_is_unknown_and_the_rest_is_kept(taken: str) -> None:
    found = photograph(photograph_file(exif_of(taken=taken, model="X100")))
    assert found == Photograph(camera="X100")


def test_the_date_of_digitizing_stands_in_for_a_missing_one() -> None:
    found = photograph(photograph_file(exif_of(taken="0000:00:00 00:00:00", digitized="1987:08:02 10:00:00")))
    assert found.taken == datetime(1987, 8, 2, 10)


@pytest.mark.parametrize(
    ("offset", "hours"), [("-03:30", -3.5), ("+0200", 2), ("Z", None), ("+25:00", None), ("", None)]
)
def test_the_offset_is_kept_where_there_is_one(offset: str, hours: float | None) -> None:
    taken = photograph(photograph_file(exif_of(taken="2024:06:01 14:30:05", offset=offset))).taken
    zone = None if hours is None else timezone(timedelta(hours=hours))
    assert taken == datetime(2024, 6, 1, 14, 30, 5, tzinfo=zone)
    assert taken.tzinfo == zone


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("Apple", "iPhone 15\0junk", "Apple iPhone 15"),
        (None, "X100", "X100"),
        ("FUJI", None, "FUJI"),
        ("\x1b[31m", "\t ", "[31m"),
        ("", "", None),
        ("A" * 500, "B", "A" * 200),
    ],
)
def test_a_camera_is_its_maker_and_its_model(make: str | None, model: str | None, camera: str | None) -> None:
    assert photograph(photograph_file(exif_of(make=make, model=model))).camera == camera


def place(latitude: bytes, reference: bytes = b"N\0\0\0", longitude: bytes | None = None) -> bytes:
    """EXIF whose place has that latitude: three fractions of 4 + 4 bytes."""
    inner = struct.pack("<H", 4) + struct.pack("<HHI4s", 1, 2, 2, reference)
    at = 26 + 2 + 4 * 12 + 4
    inner += struct.pack("<HHII", 2, 5, 3, at) + struct.pack("<HHI4s", 3, 2, 2, b"E\0\0\0")
    inner += struct.pack("<HHII", 4, 5, 3, at + 24) + b"\0" * 4 + latitude
    inner += struct.pack("<6I", 8, 1, 32, 1, 0, 1) if longitude is None else longitude
    return photograph_file(table([(0x8825, 4, 1, struct.pack("<I", 26))], inner))


def test_the_helper_above_makes_a_place() -> None:
    found = photograph(place(struct.pack("<6I", 47, 1, 30, 1, 36, 1)))
    assert (found.latitude, found.longitude) == (47.51, 8.533333)


@pytest.mark.parametrize(
    "data",
    [
        place(struct.pack("<6I", 47, 0, 22, 1, 0, 1)),
        place(struct.pack("<6I", 0, 0, 0, 0, 0, 0)),
        place(struct.pack("<6I", 91, 1, 0, 1, 0, 1)),
        place(struct.pack("<6I", 47, 1, 22, 1, 0, 1), reference=b"X\0\0\0"),
        place(struct.pack("<6I", 47, 1, 22, 1, 0, 1), reference=b"\0\0\0\0"),
        place(struct.pack("<6I", 0, 1, 0, 1, 0, 1), longitude=struct.pack("<6I", 0, 1, 0, 1, 0, 1)),
        place(struct.pack("<6I", 47, 1, 22, 1, 0, 1), longitude=b""),
    ],
    ids=["denominator 0", "0/0", "beyond the pole", "no such letter", "no letter", "0, 0", "truncated"],
)
def test_a_place_that_cannot_be_is_unknown(data: bytes) -> None:
    assert photograph(data) == Photograph()


def test_no_damage_to_exif_crashes_or_warns() -> None:
    """Every byte of the EXIF changed, and every length cut; warnings are errors in this suite."""
    whole = photograph_file(full_exif())
    start = whole.index(b"Exif\0\0")
    end = start + int.from_bytes(whole[start - 2 : start], "big") - 2
    dice = random.Random(0)
    for at in range(start, end):
        for value in (0, 255, dice.randrange(256)):
            damaged = bytearray(whole)
            damaged[at] = value
            photograph(bytes(damaged))
    exif = whole[start:end]
    for length in range(6, len(exif)):
        photograph(photograph_file(exif[:length]))


def test_a_table_that_leads_to_itself_ends() -> None:
    loop = table([(TIMES, 4, 1, struct.pack("<I", 8)), (0x8825, 4, 1, struct.pack("<I", 8))])
    assert photograph(photograph_file(loop)) == Photograph()
