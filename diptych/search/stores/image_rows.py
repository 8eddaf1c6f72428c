"""What an index remembers of a picture, and how it lies in a table, whichever store keeps it."""

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

# Every column but `vector`. No column is ever null, so that a filter is true or false for every row: what is not
# known is the empty text, or one of the numbers below, which no picture can have. A search reads `record` and the
# vector, and no other: each column of a result costs a read.
COLUMNS: dict[str, Literal["text", "int32", "int64"]] = {
    "id": "text",
    "record": "text",  # all of it, in JSON; the other columns are for filters and for refreshing
    "uri": "text",
    "source": "text",
    "caption": "text",
    "label": "text",
    "marks": "text",  # a line for each tag, value of the metadata and further caption: `tag=beach`, `meta.author=Ann`
    "uri_folded": "text",  # without upper and lower case
    "caption_folded": "text",  # every caption
    "width": "int32",
    "height": "int32",
    "bytes": "int64",
    "mtime_ns": "int64",
    "sha256": "text",
    "thumbnail": "text",
    "told": "text",  # the hash of what the source says
    "taken": "int64",  # microseconds since 1970 by the camera's clock, whose offset from UTC is disregarded
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
# What is read of a picture now. Changes where more is read than before: then the next refresh reads it again, without
# embedding.
READING = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of an index, and what tells whether it has changed."""

    id: str  # of the uri, so that it stays when the picture is embedded again
    uri: str
    source: str  # the data that it came from
    size: int  # bytes
    mtime_ns: int | None  # of the file; None for a picture inside something else
    sha256: str  # of the bytes that were embedded
    caption: str | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what JSON can say
    width: int = 0  # pixels, upright; 0 where it is not known
    height: int = 0
    thumbnail: str | None = None  # its name beside the table
    # Format 3 begins here; records of before end above.
    further_captions: tuple[str, ...] = ()  # after `caption`
    taken: str | None = (
        None  # ISO 8601, by the camera's clock; with the offset from UTC where the camera recorded it
    )
    camera: str | None = None
    latitude: float | None = None  # degrees, WGS 84, north positive
    longitude: float | None = None  # east positive
    reading: int = (
        1  # the `READING` by which it was read, which stays when its row is copied to another table
    )

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption, in the source's order."""
        return () if self.caption is None else (self.caption, *self.further_captions)

    @property
    def moment(self) -> int:
        """The column `taken`."""
        return UNKNOWN_MOMENT if self.taken is None else microseconds(datetime.fromisoformat(self.taken))

    def to_row(self) -> Row:
        """The picture as one row of `COLUMNS`."""
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
        """16 hexadecimal digits that change with anything that a source says of a picture; not with its pixels."""
        values = (self.uri, self.source, self.captions, self.label, self.tags, self.size, self.mtime_ns)
        text = json.dumps([self.reading, *values, dict(self.metadata)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_record(cls, record: str) -> "Item":
        """The picture of a row's `record`.

        Raises:
            SearchIndexError: it is none: the table is damaged.
        """
        try:
            values = json.loads(record)
            for place in _TUPLES:
                if place < len(values):
                    values[place] = tuple(values[place])
            return cls(*values)
        except (ValueError, TypeError, LookupError):
            raise SearchIndexError(
                f"damaged: a row of the index that is no picture: {record[:120]!r}; see what else is: diptych verify "
                "INDEX; restore the index from a copy, or build it again in another folder"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The picture for other programs."""
        return {name: getattr(self, name) for name in _FIELDS if name != "reading"}

    def _record(self) -> str:
        # In ASCII: what is no Unicode in a file name survives as an escape.
        return json.dumps([getattr(self, name) for name in _FIELDS], separators=(",", ":"), default=dict)


_FIELDS = tuple(field.name for field in dataclasses.fields(Item))
_TUPLES = (_FIELDS.index("tags"), _FIELDS.index("further_captions"))


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with their vectors: (len(items), dim) float16, unit length up to rounding, row for row."""

    items: Sequence[Item]
    vectors: Half

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.items) or self.vectors.dtype != np.float16:
            raise ValueError(
                f"vectors: {self.vectors.dtype} {self.vectors.shape}; expected float16 ({len(self.items)}, dim)"
            )
        if len({item.id for item in self.items}) != len(self.items):
            raise ValueError("items: an id stands twice; expected each once")

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found. `score` is its cosine with the query, -1..1."""

    item: Item
    score: float


def item_id(uri: str) -> str:
    """32 hexadecimal digits that stand for a uri; they tell nothing about it."""
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def microseconds(moment: datetime) -> int:
    """Microseconds from 1970 to a moment as a clock shows it; its offset from UTC is disregarded."""
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    # By whole numbers: a float of seconds would lose the last digits.
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def millionths(degrees: float | str) -> int:
    """Degrees in millionths, rounded: 0.1 m."""
    return round(Decimal(str(degrees)) * 1_000_000)


def mark(name: str, value: str) -> str:
    """The line that `marks` has for one tag, one value of the metadata, or one further caption."""
    return f"{_one_line(name)}={_one_line(value)}"


def scores_of(vectors: Half, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine (n,) of each row with `query` (dim,). In double precision, so that a score does not depend on
    which rows are computed together."""
    rows, question = vectors.astype(np.float64), query.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(question)
    scores = np.divide(rows @ question, lengths, out=np.zeros(len(rows)), where=lengths > 0)
    cosines: NDArray[np.float32] = scores.clip(-1, 1).astype(np.float32)
    return cosines


def ranked(batch: Batch, query: NDArray[np.float32], k: int, offset: int) -> list[Hit]:
    """The candidates of a search as its result: by their exact scores, and of equal scores by id."""
    scores = scores_of(batch.vectors, query)
    order = sorted(range(len(batch)), key=lambda place: (-scores[place], batch.items[place].id))
    return [Hit(batch.items[place], float(scores[place])) for place in order[offset : offset + k]]


def _marks(item: Item) -> str:
    """Every tag, every further caption and every plain value of the metadata on a line, with a line end before the
    first too, so that `\\ntag=beach\\n` is found only where it is a whole line."""
    lines = [mark("tag", tag) for tag in item.tags]
    lines += [mark("caption", caption) for caption in item.further_captions]
    for name, value in item.metadata.items():
        values = value if isinstance(value, list | tuple) else [value]
        lines += [mark(f"meta.{name}", str(one)) for one in values if isinstance(one, str | int | float)]
    return "\n" + "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
