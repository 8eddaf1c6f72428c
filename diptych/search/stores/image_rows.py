"""Define the record of an image in an index, and its row in the tables of all stores."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diptych.data.sources.stray_bytes import stored
from diptych.errors import SearchIndexError

Half = NDArray[np.float16]
Row = dict[str, str | int]

# Every column but `vector`. No column is ever null, so that a filter is true or false for every row: an unknown value
# is the empty text, or one of the numbers below, which no image can have. A search reads only `record` and the vector,
# because each column of a result costs a read.
COLUMNS: dict[str, Literal["text", "int32", "int64"]] = {
    "id": "text",
    "record": "text",  # the whole item, in JSON; the other columns are for filters and for refreshing
    "uri": "text",
    "source": "text",
    "caption": "text",
    "label": "text",
    "marks": "text",  # one line per tag, value of the metadata and further caption: `tag=beach`, `meta.author=Ann`
    "uri_folded": "text",  # with the case folded
    "caption_folded": "text",  # every caption
    "width": "int32",
    "height": "int32",
    "bytes": "int64",
    "mtime_ns": "int64",
    "sha256": "text",
    "thumbnail": "text",
    "told": "text",  # a hash of what the source says about the image
    "taken": "int64",  # microseconds since 1970 by the camera's clock; its offset from UTC is ignored
    "camera": "text",
    "camera_folded": "text",
    "latitude": "int32",  # millionths of a degree
    "longitude": "int32",
}
UNKNOWN_TIME = -1
UNKNOWN_MOMENT = -(10**18)
UNKNOWN_PLACE = -(10**9)
# Columns that tables of index format 2 lack.
ADDED_COLUMNS = frozenset({"taken", "camera", "camera_folded", "latitude", "longitude"})

_CAPTION_END = "\x1e"  # between captions in one column: a control character, which nobody searches for
# The version of what is read from an image. It is raised if more is read than before: then the next refresh reads the
# images again, without embedding them.
READING = 2


@dataclass(frozen=True, slots=True)
class Item:
    """An image of an index, with the fields that show whether it has changed."""

    id: str  # a hash of the uri, so that it stays when the image is embedded again
    uri: str
    source: str  # the name of its source
    size: int  # bytes
    mtime_ns: int | None  # of the file; None for an image inside an archive or a table
    sha256: str  # of the embedded bytes
    caption: str | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)  # values that JSON can hold
    width: int = 0  # pixels, upright; 0 if unknown
    height: int = 0
    thumbnail: str | None = None  # its name beside the table
    # Format 3 begins here; older records end above.
    further_captions: tuple[str, ...] = ()  # after `caption`
    taken: str | None = None  # ISO 8601, by the camera's clock; with the offset from UTC if it was recorded
    camera: str | None = None
    latitude: float | None = None  # degrees, WGS 84, north positive
    longitude: float | None = None  # east positive
    reading: int = 1  # the `READING` by which it was read; it stays when the row is copied to another table

    @property
    def captions(self) -> tuple[str, ...]:
        """Return every caption, in the source's order."""
        return () if self.caption is None else (self.caption, *self.further_captions)

    @property
    def moment(self) -> int:
        """Return the value of the column `taken`."""
        return UNKNOWN_MOMENT if self.taken is None else microseconds(datetime.fromisoformat(self.taken))

    def to_row(self) -> Row:
        """Return the image as one row of `COLUMNS`."""
        row: Row = {
            "id": self.id,
            "record": self._record(),
            "uri": self.uri,
            "source": self.source,
            "caption": self.caption or "",
            "label": self.label or "",
            "marks": _marks(self),
            "uri_folded": self.uri.casefold(),
            "caption_folded": _CAPTION_END.join(self.captions).casefold(),
            "width": self.width,
            "height": self.height,
            "bytes": self.size,
            "mtime_ns": UNKNOWN_TIME if self.mtime_ns is None else self.mtime_ns,
            "sha256": self.sha256,
            "thumbnail": self.thumbnail or "",
            "told": self.told(),
            "taken": self.moment,
            "camera": self.camera or "",
            "camera_folded": (self.camera or "").casefold(),
            "latitude": UNKNOWN_PLACE if self.latitude is None else millionths(self.latitude),
            "longitude": UNKNOWN_PLACE if self.longitude is None else millionths(self.longitude),
        }
        return {name: stored(value) if isinstance(value, str) else value for name, value in row.items()}

    def told(self) -> str:
        """Hash everything that a source says about an image, but not its pixels, to 16 hexadecimal digits."""
        values = (self.uri, self.source, self.captions, self.label, self.tags, self.size, self.mtime_ns)
        text = json.dumps([self.reading, *values, dict(self.metadata)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_record(cls, record: str) -> "Item":
        """Read the image from a row's `record`.

        Raises:
            SearchIndexError: it is not a record of an image, because the table is damaged.
        """
        try:
            values = json.loads(record)
            for place in _TUPLES:
                if place < len(values):
                    values[place] = tuple(values[place])
            return cls(*values)
        except (ValueError, TypeError, LookupError):
            raise SearchIndexError(
                f"the index is damaged: a row does not describe an image: {record[:120]!r}; check the rest: diptych "
                "verify INDEX; restore the index from a copy, or build it again in another folder"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the image for other programs."""
        return {name: getattr(self, name) for name in _FIELDS if name != "reading"}

    def _record(self) -> str:
        # In ASCII, where bytes of a file name that are not Unicode survive as escapes.
        return json.dumps([getattr(self, name) for name in _FIELDS], separators=(",", ":"), default=dict)


_FIELDS = tuple(field.name for field in dataclasses.fields(Item))
_TUPLES = (_FIELDS.index("tags"), _FIELDS.index("further_captions"))


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their vectors: (len(items), dim) float16, unit length up to rounding, row for row."""

    items: Sequence[Item]
    vectors: Half

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.items) or self.vectors.dtype != np.float16:
            raise ValueError(
                f"vectors: {self.vectors.dtype} {self.vectors.shape}; expected float16 ({len(self.items)}, dim)"
            )
        if len({item.id for item in self.items}) != len(self.items):
            raise ValueError("items: an id occurs twice; expected each once")

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that a search found. score: its cosine with the query, -1..1."""

    item: Item
    score: float


def item_id(uri: str) -> str:
    """Return the id of a uri: 32 hexadecimal digits that reveal nothing about it."""
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 to a moment as a clock shows it; its offset from UTC is ignored."""
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    # In whole numbers, because a float of seconds would lose the last digits.
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def millionths(degrees: float | str) -> int:
    """Convert degrees to millionths, rounded: 0.1 m."""
    return round(Decimal(str(degrees)) * 1_000_000)


def mark_line(name: str, value: str) -> str:
    """Return the line of `marks` for one tag, one value of the metadata, or one further caption."""
    return f"{_one_line(name)}={_one_line(value)}"


def scores_of(vectors: Half, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine (n,) of each row with `query` (dim,).

    It is computed in double precision, so that a score does not depend on the other rows.
    """
    rows, question = vectors.astype(np.float64), query.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(question)
    scores = np.divide(rows @ question, lengths, out=np.zeros(len(rows)), where=lengths > 0)
    cosines: NDArray[np.float32] = scores.clip(-1, 1).astype(np.float32)
    return cosines


def rank_hits(batch: Batch, query: NDArray[np.float32], k: int, offset: int) -> list[Hit]:
    """Order the candidates of a search by their exact scores, and equal scores by id; return the page."""
    scores = scores_of(batch.vectors, query)
    order = sorted(range(len(batch)), key=lambda place: (-scores[place], batch.items[place].id))
    return [Hit(batch.items[place], float(scores[place])) for place in order[offset : offset + k]]


def _marks(item: Item) -> str:
    """Return every tag, further caption and plain value of the metadata, one per line.

    A line end also precedes the first line, so that `\\ntag=beach\\n` matches only a whole line.
    """
    lines = [mark_line("tag", tag) for tag in item.tags]
    lines += [mark_line("caption", caption) for caption in item.further_captions]
    for name, value in item.metadata.items():
        values = value if isinstance(value, list | tuple) else [value]
        lines += [mark_line(f"meta.{name}", str(one)) for one in values if isinstance(one, str | int | float)]
    return "\n" + "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
