"""Read the members of a tar archive from its headers alone.

The standard library's reader extracts, follows links and ignores a truncated end. Training needs something else: the
offset of every file, and an error if the archive is not whole. Nothing is ever written to disk under a name that an
archive chose.

Format: POSIX.1-2001 (ustar and pax), and the long names and large sizes of GNU tar.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from diptych.data.files.places import RandomAccess
from diptych.errors import DataError

_BLOCK = 512  # bytes; headers are one block, data is padded to whole ones
_LARGEST_EXTENSION = 1 << 20  # bytes of one extended header: names and attributes, never data
_REGULAR = (b"0", b"\0", b"7")
_FOLDER = b"5"
_EXTENSIONS = (b"x", b"g", b"L", b"K")
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
    b"M": "a part of a file split over volumes",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\3\4": "zip",
}
_REFETCH = "copy or pack it again"
_REPACK = "pack it again with plain files only"


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive: its name, the offsets of its header and of its data, and its size, in bytes."""

    name: str
    header: int
    offset: int
    size: int


def read_members(file: RandomAccess) -> Iterator[Member]:
    """Yield the regular files of an archive in order; folders are skipped.

    Raises:
        DataError: the archive is compressed, damaged, cut short or followed by more data, or holds a link, a
            device or a sparse file; the message names the file and the offset.
    """
    start = place = 0
    attributes: dict[str, str] = {}
    while any(header := _header(file, place)):
        where = f"{file.path} at byte {place:,}"
        kind = header[156:157]
        size = _size(header, where)
        if kind not in _EXTENSIONS and "size" in attributes:
            size = _decimal(attributes["size"], where)
        offset = place + _BLOCK
        if offset + size > file.version.size:
            raise DataError(
                f"{where}: the archive is cut short: a member of {size:,} bytes has "
                f"{file.version.size - offset:,} bytes left; {_REFETCH}"
            )
        if kind in _EXTENSIONS:
            attributes |= _extension(file, kind, offset, size, where)
        else:
            name = attributes.get("path") or _short_name(header)
            if kind in _REGULAR and not any(key.startswith("GNU.sparse") for key in attributes):
                # Before POSIX, a folder was an empty file with a slash at the end of its name.
                if not name.endswith("/"):
                    yield Member(name, start, offset, size)
            elif kind != _FOLDER:
                what = _REFUSED.get(
                    kind, "a sparse file" if kind in _REGULAR else f"of the unknown type {kind!r}"
                )
                raise DataError(f"{where}: {name!r} is {what}, which is not allowed in a shard; {_REPACK}")
            attributes = {}
        place = offset + -(-size // _BLOCK) * _BLOCK
        if not attributes and kind != b"g":
            start = place
    _check_end(file, place)


def _header(file: RandomAccess, place: int) -> bytes:
    header = file.read(place, _BLOCK)
    where = f"{file.path} at byte {place:,}"
    if place == 0:
        for mark, name in _COMPRESSED.items():
            if header.startswith(mark):
                raise DataError(
                    f"{file.path}: is compressed with {name}, which does not allow random access; "
                    "unpack it to a plain .tar (the images inside are compressed already)"
                )
    if len(header) < _BLOCK:
        raise DataError(f"{where}: the archive is cut short: its end mark is missing; {_REFETCH}")
    if any(header):
        # The sum of all bytes, with spaces in place of the eight that hold the sum itself.
        found = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if found != _number(header[148:156]):
            what = (
                "not a tar archive"
                if place == 0
                else "damaged: the checksum of this member's header is wrong"
            )
            raise DataError(f"{where}: {what}; {_REFETCH}")
    return header


def _number(digits: bytes) -> int | None:
    """Parse an octal number of a header; None if it is not one."""
    try:
        return int(digits.strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _size(header: bytes, where: str) -> int:
    digits = header[124:136]
    # GNU tar: a leading 0x80 announces a binary number, for files beyond eight GiB.
    size = int.from_bytes(digits[1:], "big") if digits[0] == 0x80 else _number(digits)
    if size is None or size < 0:
        raise DataError(f"{where}: damaged: a member's size reads {digits!r}; {_REFETCH}")
    return size


def _decimal(digits: str, where: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise DataError(f"{where}: damaged: a member's size reads {digits[:24]!r}; {_REFETCH}")
    return int(digits)


def _short_name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU tar has the same magic with spaces, and uses the field of the prefix for times.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    # Names need not be valid UTF-8; escapes keep different names different.
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _extension(file: RandomAccess, kind: bytes, offset: int, size: int, where: str) -> dict[str, str]:
    """Return the attributes that an extended header gives to the next member."""
    if size > _LARGEST_EXTENSION:
        raise DataError(
            f"{where}: an extended header of {size:,} bytes; at most "
            f"{_LARGEST_EXTENSION:,} are read; {_REPACK}"
        )
    if kind == b"L":
        return {"path": _text(file.read(offset, size))}
    # `g` gives defaults for all members (dates, comments), and `K` the target of a link, which is refused anyway.
    return _pax_records(file.read(offset, size), where) if kind == b"x" else {}


def _pax_records(data: bytes, where: str) -> dict[str, str]:
    """Parse records of the form `LENGTH NAME=VALUE\\n`; LENGTH counts the whole record."""
    records = {}
    place = 0
    while place < len(data):
        digits, space, _ = data[place : place + 20].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        name, equals, value = data[place + len(digits) + 1 : place + length].partition(b"=")
        if not equals or not value.endswith(b"\n") or place + length > len(data):
            raise DataError(f"{where}: damaged: an extended header cannot be read; {_REFETCH}")
        records[_text(name)] = _text(value[:-1])
        place += length
    return records


def _check_end(file: RandomAccess, place: int) -> None:
    """Check that only padding follows the end mark: other data would be lost silently."""
    while block := file.read(place, 1 << 20):
        if any(block):
            raise DataError(
                f"{file.path}: more data follows the archive's end mark before byte {place + len(block):,}; "
                "archives joined with `cat` must be split again"
            )
        place += len(block)
