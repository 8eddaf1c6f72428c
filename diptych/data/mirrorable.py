"""Which images may be mirrored: those whose words do not tell left from right."""

import re
from collections.abc import Iterable

# Words that a mirrored image would make wrong: directions, and what is written or drawn one way round. The list is
# that of emoji, icons and clip art; more words than needed only leave more images as they are.
_HANDED = re.compile(
    r"\b(left|right|leftwards|rightwards|clockwise|counterclockwise|anticlockwise|east|west|flag|letter|letters"
    r"|keycap|digit|number|text|font|brand|logo)\b",
    re.IGNORECASE,
)
# The words among them that can be put right again in the text; see `tokenizer.mirroring`.
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def may_mirror(words: Iterable[str], *, exchange_sides: bool) -> bool:
    """Return whether an image may be mirrored. words: its captions and tags.

    exchange_sides: whether "left" and "right" are exchanged in the text of a mirrored image.
    """
    said = " ".join(words)
    return _HANDED.search(_SIDES.sub("", said) if exchange_sides else said) is None
