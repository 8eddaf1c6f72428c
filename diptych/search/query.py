"""Define queries and results of an index, and the formula that combines the parts of a query into a vector."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from diptych.errors import SettingsError
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.image_rows import UNKNOWN_MOMENT, Item

if TYPE_CHECKING:  # it imports torch, which a query does not need
    from diptych.embed.encode import ImageInput

# By the time when a photograph was taken; images without one come last.
Sort = Literal["newest", "oldest"]
SORTS: tuple[str, ...] = get_args(Sort)

# The deepest result that can be requested: a page costs as much as everything before it.
DEEPEST = 10_000
MOST_PARTS = 32
LARGEST_WEIGHT = 100.0
# The default weight of unwanted parts; docs/search.md has the measurement. With the weight of the wanted
# parts, they would turn the query away from both.
UNWANTED = -0.2

# Parts cancel each other if no more than this fraction of their weights is left. In bfloat16 one image embedded twice
# differs by 0.0003 in cosine on average: the difference has the length sqrt(2 * 0.0003) = 0.024, 0.012 of 1 + 1.
_VANISHED = 0.02


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One part of a query: a text, an image, or an image of the index by its id; exactly one of the three.

    Args:
        text: words that the images are to match.
        image: an image file, its bytes, or a Pillow image that they are to resemble.
        id: the id of an image of the index (`Match.item.id`) that they are to resemble.
        weight: how much the part counts, from -100 to 100 and not 0. With a negative weight the images are to be
            unlike it; -0.2 is what `diptych search --not` uses.

    Raises:
        SettingsError: not exactly one of text, image and id; an empty text; or a weight that is 0 or out of bounds.

    Example:
        >>> import diptych
        >>> diptych.QueryPart(text="a wheel", weight=-0.2).weight
        -0.2
    """

    text: str | None = None
    image: "ImageInput | None" = None
    id: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.text, self.image, self.id)) != 1:
            raise SettingsError("part of a query: expected exactly one of a text, an image and an id")
        if self.text is not None and not self.text.strip():
            raise SettingsError("part of a query: the text is empty; give words, or leave it out")
        if not 0 < abs(self.weight) <= LARGEST_WEIGHT:
            raise SettingsError(
                f"part of a query: weight {self.weight!r}; expected a number from {-LARGEST_WEIGHT:g} to "
                f"{LARGEST_WEIGHT:g}, and not 0"
            )


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and which of its results to return.

    Raises:
        SettingsError: there is no part, a number is out of bounds, or the filter is not well formed.
    """

    parts: tuple[QueryPart, ...]
    filter: str | None = None  # see `filter_syntax`
    min_score: float | None = None  # cosine, -1..1
    count: int = 10
    offset: int = 0  # results before the first one returned
    group_duplicates: bool = False
    diversity: float = 0.0  # 0 orders by score alone, 1 by difference from the results before alone
    exact: bool = False  # compare with every image, without the approximate index
    sort: Sort | None = None  # order the matches by date; None: by score

    def __post_init__(self) -> None:
        if not self.parts:
            raise SettingsError(
                "nothing to search for; give words, an image, or the id of an image of the index"
            )
        if len(self.parts) > MOST_PARTS:
            raise SettingsError(f"query of {len(self.parts)} parts; expected at most {MOST_PARTS}")
        check_page(self.count, self.offset)
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise SettingsError(f"minimum score {self.min_score!r}; expected a cosine, from -1 to 1")
        if not 0 <= self.diversity <= 1:
            raise SettingsError(f"diversity {self.diversity!r}; expected a number from 0 to 1")
        if self.sort not in (None, *SORTS):
            raise SettingsError(f"sort {self.sort!r}; expected one of {', '.join(SORTS)}")
        if self.sort is not None and self.diversity:
            raise SettingsError("sort and diversity: each sets the order of the results; leave one out")
        if self.filter is not None:
            parse(self.filter)


@dataclass(frozen=True, slots=True)
class Match:
    """One result of a search.

    Attributes:
        item: the image: `id`, `uri`, `caption`, `captions`, `label`, `tags`, `metadata`, `width` and `height` (pixels);
            of a photograph also `taken` (ISO 8601), `camera`, `latitude` and `longitude` (degrees).
        score: its cosine with the query, -1..1.
        duplicates: near copies that were grouped with it, best first; empty unless that was asked for.
    """

    item: Item
    score: float
    duplicates: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of results. more: whether there is a next page."""

    found: tuple[Match, ...]
    more: bool
    seconds_embedding: float
    seconds_searching: float


class DuplicateImage(TypedDict):
    """An image that was grouped with a result, for other programs."""

    id: str
    uri: str


class Result(TypedDict):
    """One result, for other programs. score: its cosine with the query, -1..1."""

    id: str
    uri: str
    score: float | None  # None without a query: in a list of images
    caption: str | None  # the first
    captions: list[str]
    taken: str | None  # ISO 8601, by the camera's clock
    camera: str | None
    latitude: float | None  # degrees
    longitude: float | None
    duplicates: list[DuplicateImage]


def result_of(found: Match) -> Result:
    """Return a result as `diptych search --json` prints it."""
    return _result(found.item, found.score, found.duplicates)


def listed_result(item: Item) -> Result:
    """Return an image of a list, without a query, as `diptych search --json` prints it."""
    return _result(item, None, ())


def _result(item: Item, score: float | None, duplicates: tuple[Item, ...]) -> Result:
    return Result(
        id=item.id,
        uri=item.uri,
        score=score,
        caption=item.caption,
        captions=list(item.captions),
        taken=item.taken,
        camera=item.camera,
        latitude=item.latitude,
        longitude=item.longitude,
        duplicates=[DuplicateImage(id=other.id, uri=other.uri) for other in duplicates],
    )


def combine(vectors: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Combine the parts of a query into its vector (dim,), of unit length: their normalised weighted sum.

        q = s / |s|,  s = w_1 v_1 + ... + w_n v_n

    vectors: (n, dim), n at least 1, each of unit length. weights: (n,), negative for unwanted parts. So every score is
    a weighted sum of the parts' own cosines, divided by |s|. Relevance feedback adds and subtracts examples in the same
    way (Rocchio 1971, "Relevance feedback in information retrieval").

    Raises:
        SettingsError: the parts cancel each other: |s| is at most 0.02 of the sum of |w|.
    """
    if vectors.ndim != 2 or not len(vectors) or weights.shape != (len(vectors),):
        raise ValueError(
            f"vectors {vectors.shape}, weights {weights.shape}; expected (n, dim) and (n,), n >= 1"
        )
    total = weights.astype(np.float64) @ vectors.astype(np.float64)
    length = float(np.linalg.norm(total))
    # The comparison is written so that it also rejects values that are not finite.
    if not _VANISHED * float(np.abs(weights).sum(dtype=np.float64)) < length < math.inf:
        raise SettingsError(
            "the parts of the query cancel each other: nothing is left to search for; leave one out, or give them "
            "different weights"
        )
    unit: NDArray[np.float32] = (total / length).astype(np.float32)
    return unit


def sort_key(sort: Sort, taken: int, id_: str) -> tuple[int, str]:
    """Return the key of an image in a sort by the column `taken`: unknown times last, equal times by id."""
    if taken == UNKNOWN_MOMENT:
        return -UNKNOWN_MOMENT, id_
    return (-taken if sort == "newest" else taken), id_


def check_page(count: int, offset: int) -> None:
    """Check that a page can be requested. Raises SettingsError for one that is empty or too deep."""
    if count < 1 or offset < 0:
        raise SettingsError(f"count {count}, offset {offset}: expected at least 1 and 0")
    if offset + count > DEEPEST:
        raise SettingsError(
            f"results {offset:,} to {offset + count:,}: at most the first {DEEPEST:,} can be requested; narrow the "
            "query with a filter"
        )
