"""Names and captions as a terminal can show them: in one line, in order, and not longer than one can read."""

import re

_LONGEST = 300  # characters of a name

# Control characters end lines, move the cursor and set colours; the others turn the direction of what follows.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return `text` with escapes in place of control characters, such as `\\n` for the end of a line."""
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_name(name: str) -> str:
    """Return a name as `printable` does; a long one loses its middle, since its end says most."""
    half = _LONGEST // 2
    return printable(name if len(name) <= _LONGEST else f"{name[:half]}[...]{name[-half:]}")
