"""Name why an example is bad in a few fixed words, so that bad examples can be counted by reason."""

import re

from diptych.data.images.decoding import HEIC_NEEDS
from diptych.data.left_out import TOO_LARGE
from diptych.errors import DataError

NO_CAPTION = "no caption"

# Patterns of the messages of this package and, behind "damaged", of the decoders. The first match counts.
# tests/data/test_reasons.py makes one bad example for each line.
_REASONS: tuple[tuple[str, str], ...] = (
    (
        r"damaged or not readable \(.*(truncat|incomplete checksum|requires a buffer|end of file)",
        "truncated image",
    ),
    (r"damaged or not readable|row group \d+: damaged|record batch \d+: damaged", "damaged image"),
    (r"this caption file cannot be read", "unreadable caption file"),
    (re.escape(HEIC_NEEDS), HEIC_NEEDS),
    (r"not an image: begins with", "not an image"),
    (r": empty; expected one of", "empty image"),
    (r"larger than [\d,]+ bytes|pixels; at most", TOO_LARGE),
    (r"its pixels are|a TIFF of 12 bits", "pixels of unknown range"),
    (r"; expected one of .*; convert it|cannot read AVIF", "format not read"),
    (r"no such image|was there when the folder was listed|No such file", "missing image"),
    (r"the image is an address", "image is an address"),
    (r"the image column holds", "no image named"),
    (r"fields, but there are|expected IMAGE#NUMBER", "broken row"),
    (r"not valid JSON|a JSON \w+; expected one object|JSON nested more than", "invalid JSON"),
    (r"not UTF-8|is not UTF-8", "text is not UTF-8"),
    (r"expected a string or a (list of strings|whole number)", "field of the wrong type"),
    (r"the file changed while it was in use", "file changed"),
    (r"cannot be read \(|: not a file; expected", "unreadable file"),
    (r": no caption$", NO_CAPTION),
)


def reason_of(error: DataError) -> str:
    """Return the reason behind an example's error, such as "truncated image"; "unreadable" for an unknown message."""
    message = str(error)
    return next(
        (reason for pattern, reason in _REASONS if re.search(pattern, message, re.IGNORECASE)), "unreadable"
    )
