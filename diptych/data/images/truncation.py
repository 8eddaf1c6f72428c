"""Detect image files that end too early, after an interrupted download or on a full disk.

Decoders report this for some formats only, each in its own words; the formats themselves mark the end of a file.
"""

import struct
from collections.abc import Callable


def is_cut(data: bytes, kind: str) -> bool:
    """Return whether the file of a format (JPEG, PNG, ...) lacks its end. False if the format does not mark it."""
    try:
        return _IS_CUT[kind](data) if kind in _IS_CUT else False
    except (struct.error, OverflowError):  # the file ends even before the mark
        return True


def _boxes_are_cut(data: bytes) -> bool:
    """Check AVIF and HEIC: consecutive boxes with their sizes (0: to the end of the file), one with the pixels."""
    at, kinds = 0, set()
    while at < len(data):
        size = int(struct.unpack_from(">I", data, at)[0])
        kinds.add(data[at + 4 : at + 8])
        if size == 1:  # the size follows in 64 bits
            size = int(struct.unpack_from(">Q", data, at + 8)[0])
        if size < 8:
            return False
        at += size
    return at > len(data) or b"mdat" not in kinds


# The bytes of a value, by the number of its type.
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def _tiff_is_cut(data: bytes) -> bool:
    """Check a TIFF's first directory and the values it points to. Missing pixels are left to the decoder."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        (first,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, first)
        return bool(first + 8 + 20 * count > len(data))
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for entry in range(count):
        kind, values, place = struct.unpack_from(f"{order}HII", data, first + 2 + 12 * entry + 2)
        size = values * _TIFF_TYPES.get(kind, 0)
        if size > 4 and place + size > len(data):
            return True
    return False


_IS_CUT: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda data: b"\xff\xd9" not in data,
    "PNG": lambda data: b"IEND" not in data,
    "GIF": lambda data: not data.rstrip(b"\0").endswith(b"\0;"),
    "WebP": lambda data: 8 + int(struct.unpack_from("<I", data, 4)[0]) > len(data),
    "BMP": lambda data: int(struct.unpack_from("<I", data, 2)[0]) > len(data),
    "TIFF": _tiff_is_cut,
    "AVIF": _boxes_are_cut,
    "HEIC": _boxes_are_cut,
}
