"""The colours of `palette.css`, for what is not drawn by a browser; pages include the file itself."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PALETTE = Path(__file__).with_name("palette.css")
LINES = 8  # colours of lines, --c0 to --c7; more lines begin again

_COLOUR = re.compile(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")


class Colour(NamedTuple):
    """One colour on light and on dark paper, as #rrggbb."""

    light: str
    dark: str


@cache
def colours() -> Mapping[str, Colour]:
    """Return the colours of `palette.css` by name, such as "ink" or "c0"."""
    return {name: Colour(light, dark) for name, light, dark in _COLOUR.findall(PALETTE.read_text("utf-8"))}
