"""Read from EXIF when and where a photograph was taken, and with which camera."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from diptych.data.images.decoding import read_exif
from diptych.data.images.exif import Value, parse_exif
from diptych.errors import ImageError

# Tags of EXIF 2.32; the times and the position lie in tables of their own.
_MAKE, _MODEL = 0x010F, 0x0110
_TIMES, _PLACE = 0x8769, 0x8825
# The time of the shot, else of digitization; each with its offset from UTC and its fraction of a second.
_MOMENTS = ((0x9003, 0x9011, 0x9291), (0x9004, 0x9012, 0x9292))
_LATITUDE_REFERENCE, _LATITUDE, _LONGITUDE_REFERENCE, _LONGITUDE = 1, 2, 3, 4

_MOMENT = re.compile(r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})[ T](\d{1,2}):(\d{1,2}):(\d{1,2})", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})", re.ASCII)
_EARLIEST = 1826  # the year of the oldest surviving photograph; an earlier date is a clock that was never set
_MOST_LETTERS = 200  # of a camera's name


@dataclass(frozen=True, slots=True)
class Photograph:
    """The facts of a photograph; None if EXIF lacks them, or holds an impossible value.

    taken: the time of the camera's clock, with the offset from UTC if the camera recorded one.
    camera: maker and model.
    latitude, longitude: degrees, WGS 84; north and east are positive. Both are known, or neither.
    """

    taken: datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def photograph(image: bytes) -> Photograph:
    """Read the EXIF of an encoded image. Damaged EXIF, or an unreadable image, gives None for everything."""
    try:
        exif = parse_exif(read_exif(image))
    except ImageError:
        return Photograph()
    first = exif.table()
    latitude, longitude = _place(exif.below(first, _PLACE))
    return Photograph(_taken(exif.below(first, _TIMES)), _camera(first), latitude, longitude)


def _taken(table: Mapping[int, Value]) -> datetime | None:
    for moment, offset, fraction in _MOMENTS:
        taken = _moment(_text(table, moment))
        if taken is not None:
            digits = _text(table, fraction)
            if digits.isascii() and digits.isdigit():
                taken = taken.replace(microsecond=int(digits[:6].ljust(6, "0")))
            return taken.replace(tzinfo=_zone(_text(table, offset)))
    return None


def _moment(text: str) -> datetime | None:
    found = _MOMENT.match(text)
    if found is None:
        return None
    try:
        moment = datetime(*map(int, found.groups()))  # type: ignore[arg-type]
    except ValueError:  # a month 13, a day 0
        return None
    return moment if moment.year >= _EARLIEST else None


def _zone(text: str) -> timezone | None:
    found = _OFFSET.fullmatch(text)
    if found is None or int(found[2]) > 14 or int(found[3]) > 59:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def _camera(table: Mapping[int, Value]) -> str | None:
    make, model = _text(table, _MAKE), _text(table, _MODEL)
    # Many models begin with their maker's name: "Canon", "Canon EOS R5".
    begins = model.casefold().startswith(make.casefold())
    return (model if begins else f"{make} {model}".strip())[:_MOST_LETTERS] or None


def _place(table: Mapping[int, Value]) -> tuple[float, float] | tuple[None, None]:
    latitude = _degrees(table, _LATITUDE, _text(table, _LATITUDE_REFERENCE), "NS", 90)
    longitude = _degrees(table, _LONGITUDE, _text(table, _LONGITUDE_REFERENCE), "EW", 180)
    # Devices without a fix write 0, 0.
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None, None
    return latitude, longitude


def _degrees(table: Mapping[int, Value], tag: int, reference: str, signs: str, most: int) -> float | None:
    """Convert three fractions (degrees, minutes, seconds) and a letter to degrees, rounded to 0.1 m."""
    values = table.get(tag)
    sign = reference.upper()[:1]
    if isinstance(values, bytes) or values is None or not sign or sign not in signs or len(values) > 3:
        return None
    total = sum(value / 60**power for power, value in enumerate(values))
    if not math.isfinite(total) or min(values) < 0 or total > most:
        return None
    degrees: float = round(-total if sign == signs[1] else total, 6)
    return degrees


def _text(table: Mapping[int, Value], tag: int) -> str:
    """Return a text up to its NUL, without unprintable characters; empty if there is none."""
    value = table.get(tag, b"")
    if not isinstance(value, bytes):
        return ""
    text = value.partition(b"\0")[0].decode("utf-8", "replace")
    return "".join(letter for letter in text if letter.isprintable()).strip()
