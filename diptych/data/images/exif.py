"""Read the tables of EXIF (the layout of TIFF 6.0, section 2) from untrusted bytes.

Pillow's own reader is not used: on damaged tables it warns, through a setting that all threads share.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PREFIX = b"Exif\0\0"  # of EXIF inside a JPEG
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_MOST_ENTRIES = 1000  # of a table; cameras write some fifty
_MOST_VALUES = 4096  # of an entry

# TIFF's types by number, with the form of one value for `struct`. Texts and raw bytes are handled apart.
_TEXT, _RAW = 2, 7
_FORMS = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}

Value = bytes | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Exif:
    """EXIF data, and the byte order in which its numbers are written."""

    data: bytes
    order: str

    def table(self, offset: int | None = None) -> dict[int, Value]:
        """Read the entries of a table by their tags: the first table, or the one at `offset`.

        Texts are returned as bytes, numbers as a tuple; a fraction with the denominator 0 is NaN. Entries that do not
        fit into the data are left out.
        """
        if offset is None:
            (offset,) = struct.unpack_from(f"{self.order}I", self.data, 4) if len(self.data) >= 8 else (0,)
        return dict(self._entries(offset)) if 8 <= offset <= len(self.data) - 2 else {}

    def below(self, table: dict[int, Value], tag: int) -> dict[int, Value]:
        """Read the table that an entry of `table` points to; empty if there is none."""
        offset = table.get(tag)
        return self.table(int(offset[0])) if isinstance(offset, tuple) and len(offset) == 1 else {}

    def _entries(self, offset: int) -> Iterator[tuple[int, Value]]:
        (count,) = struct.unpack_from(f"{self.order}H", self.data, offset)
        for number in range(min(count, _MOST_ENTRIES)):
            at = offset + 2 + 12 * number
            if at + 12 > len(self.data):
                return
            tag, kind, length = struct.unpack_from(f"{self.order}HHI", self.data, at)
            value = self._value(kind, length, at + 8)
            if value is not None:
                yield tag, value

    def _value(self, kind: int, length: int, at: int) -> Value | None:
        form = "B" if kind in (_TEXT, _RAW) else _FORMS.get(kind)
        if form is None or not 0 < length <= _MOST_VALUES:
            return None
        form = f"{self.order}{form * length}"
        size = struct.calcsize(form)
        if size > 4:  # then the entry holds the offset of its value
            (at,) = struct.unpack_from(f"{self.order}I", self.data, at)
        if at + size > len(self.data):
            return None
        if kind in (_TEXT, _RAW):
            return self.data[at : at + size]
        values = struct.unpack_from(form, self.data, at)
        if kind in (5, 10):
            pairs = zip(values[::2], values[1::2], strict=True)
            return tuple(top / bottom if bottom else float("nan") for top, bottom in pairs)
        return values


def parse_exif(data: bytes) -> Exif:
    """Open the raw EXIF of an image, or a whole TIFF file. Anything else gives EXIF without tables."""
    data = data.removeprefix(_PREFIX)
    order = _ORDERS.get(data[:4])
    return Exif(b"", "<") if order is None else Exif(data, order)
