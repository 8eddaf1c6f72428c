"""What pages are made of besides charts: tables, tiles and images, drawn by `templates/parts.html`."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A number that stands out, with what it means."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table. note: small, under its name. colour: of the line that draws it, c0 to c7."""

    name: str
    cells: Sequence[str]
    note: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """A table: what stands above each column, and its rows. strong: the index of the cells that stand out, if any."""

    heads: Sequence[str]
    rows: Sequence[Row]
    strong: int | None = None


@dataclass(frozen=True)
class PageImage:
    """An image inside the page, with its name and a note under it."""

    data: bytes
    name: str
    note: str = ""
    tooltip: str = ""
    media_type: str = "image/png"

    @property
    def address(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"
