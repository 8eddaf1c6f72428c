"""Photographs that tests make: JPEG files with EXIF as cameras write it."""

import io
import struct
from fractions import Fraction

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

MAKE, MODEL, TIMES, PLACE = 0x010F, 0x0110, 0x8769, 0x8825
TAKEN, OFFSET, FRACTION, DIGITIZED = 0x9003, 0x9011, 0x9291, 0x9004


def exif_of(
    *,
    taken: str | None = None,
    offset: str | None = None,
    fraction: str | None = None,
    digitized: str | None = None,
    make: str | None = None,
    model: str | None = None,
    place: tuple[float, float] | None = None,
) -> Image.Exif:
    """EXIF with those entries. place: degrees of latitude and longitude."""
    exif = Image.Exif()
    exif.update({tag: value for tag, value in ((MAKE, make), (MODEL, model)) if value is not None})
    times = ((TAKEN, taken), (OFFSET, offset), (FRACTION, fraction), (DIGITIZED, digitized))
    exif.get_ifd(TIMES).update({tag: value for tag, value in times if value is not None})
    if place is not None:
        latitude, longitude = place
        exif.get_ifd(PLACE).update(
            {
                1: "S" if latitude < 0 else "N",
                2: sexagesimal(latitude),
                3: "W" if longitude < 0 else "E",
                4: sexagesimal(longitude),
            }
        )
    return exif


def sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds as cameras write them: fractions without a sign."""
    seconds = Fraction(str(abs(degrees))) * 3600
    whole, minutes = divmod(seconds // 60, 60)
    rest = seconds % 60
    return IFDRational(int(whole)), IFDRational(int(minutes)), IFDRational(rest.numerator, rest.denominator)


def photograph_file(
    exif: Image.Exif | bytes, *, kind: str = "JPEG", colour: tuple[int, int, int] = (200, 30, 30)
) -> bytes:
    """A small image of one colour, 24 by 16 pixels, with that EXIF."""
    file = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(file, kind, exif=exif)
    return file.getvalue()


def table(entries: list[tuple[int, int, int, bytes]], rest: bytes = b"") -> bytes:
    """EXIF byte by byte: one table of (tag, type, count, four bytes), and what follows it."""
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + b"\0\0\0\0" + rest
