"""Write results as JSON and CSV files."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from diptych.search.query import Match, result_of
from diptych.search.stores.image_rows import Item
from diptych.serving.page.page_state import State

# Enough for a contact sheet or a first data set; use the API for more.
MOST = 1000

_COLUMNS = (
    *("id", "uri", "score", "caption", "label", "tags", "width", "height"),
    *("taken", "camera", "latitude", "longitude", "further captions"),
)
# Spreadsheets run a cell that begins with one of these. OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_json(state: State, found: Sequence[Match]) -> str:
    """Write the query string of the search, and its results as `diptych search --json` prints them."""
    return json.dumps(
        {"query": state.query().removeprefix("?"), "results": [result_of(one) for one in found]}, indent=1
    )


def as_csv(found: Sequence[Match]) -> str:
    """Write one row a result, best first. Texts cannot become spreadsheet formulas."""
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(_COLUMNS)
    for one in found:
        rows.writerow(_row(one.item, one.score))
    # A file name may not be valid Unicode.
    return file.getvalue().encode("utf-8", "replace").decode("utf-8")


def _row(item: Item, score: float) -> list[Any]:
    texts = (item.caption or "", item.label or "", ", ".join(item.tags))
    caption, label, tags = map(_inert, texts)
    known = [item.id, _inert(item.uri), f"{score:.6f}", caption, label, tags, item.width, item.height]
    further = _inert("\n".join(item.further_captions))
    return [*known, item.taken, _inert(item.camera or ""), item.latitude, item.longitude, further]


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
