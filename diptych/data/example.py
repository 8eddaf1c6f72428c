"""One image with its captions, tags and label."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.errors import DataError

# fmt: off
IMAGE_SUFFIXES = (
    "jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jfif", "jpe", "mpo", "heic", "heif", "hif",
    "apng",
)
# fmt: on
"""File suffixes of images, in order of preference where one key has several. The bytes of a file decide its format; a
suffix only says that the file is worth opening."""

_DEEPEST = 100  # nested lists and objects; JSON writers, the server among them, stop at a few hundred
_WORDS = ("captions", "caption", "tags", "label", "code")


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its captions, tags and label, as a source returns it: nothing is decoded yet.

    Attributes:
        key: a stable name, unique within its source: a path, a line, a key of a shard.
        image: the path of a file, or the bytes of an encoded image.
        captions: sentences or titles; empty where the source knows none.
        tags: keywords, which may be sampled as further text.
        label: the name of the image's class, where the source has one.
        group: examples of one group show the same concept, so they are not negatives of each other (for emoji, the
            code point).
        metadata: what else the source knows (author, licence, vendor, ...).
        sound: a WAV file, where the source has sounds.
    """

    key: str
    image: Path | bytes
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sound: bytes | None = None


def example_from_record(
    key: str, image: Path | bytes, record: Mapping[str, Any], where: str, text: str = ""
) -> Example:
    """Make an example from a JSON object, as it lies beside an image in a folder or a shard.

    `captions` (a list) and `caption` (a string) are joined without repetition. If both are empty, the lines of `text`
    are the captions. `tags` is a list, or a string with commas. `label` is a string or a whole number, and so is
    `code`, which becomes the group. Everything else is kept as metadata. None, NaN and empty text count as absent, in
    a list too.

    Raises:
        DataError: a field has another type, or the object is nested too deep; `where` names the file.
    """
    _check_depth(record, where)
    code = record.get("code")
    captions = [*_strings(record, "captions", where), *_strings(record, "caption", where)]
    return Example(
        key=key,
        image=image,
        captions=tuple(dict.fromkeys(captions)) or caption_lines(text),
        tags=_tags(record, where),
        label=_name(record, "label", where),
        group=str(code) if isinstance(code, str | int) and code != "" else None,
        metadata={
            name: None if is_nothing(value) else value for name, value in record.items() if name not in _WORDS
        },
    )


def _check_depth(record: Mapping[str, Any], where: str) -> None:
    inside: list[Any] = [record]
    for _ in range(_DEEPEST):
        values = (value for one in inside for value in (one if isinstance(one, list) else one.values()))
        inside = [value for value in values if isinstance(value, list | dict)]
        if not inside:
            return
    raise DataError(f"{where}: JSON nested more than {_DEEPEST} deep; expected one object such as {_SHAPE}")


def is_nothing(value: Any) -> bool:
    """Return whether a value is absent: None, or NaN, which pandas writes for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def parse_record(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object from its bytes. Raise DataError, with `where`, for anything else."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); expected one object such as {_SHAPE}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: is a JSON {type(record).__name__}; expected one object such as {_SHAPE}")
    return record


def decode_text(data: bytes, where: str) -> str:
    """Decode UTF-8 text, without its byte order mark. Raise DataError, with `where`, for another encoding."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8"
        ) from None


def caption_lines(text: str) -> tuple[str, ...]:
    """Return the captions of a text, one per line, without surrounding space and empty lines."""
    # `splitlines` would also cut at form feeds and Unicode separators, which occur inside scraped captions.
    lines = (line.strip() for line in text.replace("\r", "\n").split("\n"))
    return tuple(line for line in lines if line)


def valid_unicode(text: str) -> str:
    """Return `text` with U+FFFD in place of each half of a surrogate pair.

    JSON escapes contain such halves where a text was cut inside an emoji. Python uses them for bytes of a file name
    that are not UTF-8. Neither a tokenizer nor a table accepts them.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_SHAPE = '{"captions": ["a red bicycle"], "tags": ["bicycle", "red"]}'


def _strings(record: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = record.get(name)
    if is_nothing(value):
        return []
    if not isinstance(value, str | list):
        raise DataError(f"{where}: {name!r} is {_shown(value)}; expected a string or a list of strings")
    values = [value] if isinstance(value, str) else [item for item in value if not is_nothing(item)]
    if not all(isinstance(item, str) for item in values):
        raise DataError(f"{where}: {name!r} is {_shown(value)}; expected a string or a list of strings")
    return [valid_unicode(item.strip()) for item in values if item.strip()]


def _tags(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = record.get("tags")
    if isinstance(value, str):
        return tuple(valid_unicode(tag.strip()) for tag in value.split(",") if tag.strip())
    return tuple(_strings(record, "tags", where))


def _name(record: Mapping[str, Any], name: str, where: str) -> str | None:
    value = record.get(name)
    if is_nothing(value) or not str(value).strip():
        return None
    if isinstance(value, float) and value.is_integer():
        # pandas turns whole numbers into decimals in a column where one of them is missing.
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: {name!r} is {_shown(value)}; expected a string or a whole number")
    return str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
