r"""Filters: conditions on what is known of a picture, as text that a person writes and as values that a store reads.

    width >= 1000 and (tag = "beach" or caption contains "sea") and not shape = portrait

    condition   FIELD OPERATOR VALUE, or FIELD in (VALUE, VALUE, ...)
    FIELD       text:   id, uri, source, caption, label, sha256,     = != in starts; uri, caption, camera also contains
                        camera
                number: width, height, bytes                         = != in < <= > >=
                degree: latitude, longitude (to 6 decimals)          < <= > >=
                date:   modified (UTC), taken (the camera's clock)   < <= > >=
                place:  place                                        near "LATITUDE, LONGITUDE, 5 km"
                choice: shape (landscape, portrait, square)          = != in
                words:  tag, meta.NAME                               = != in
    VALUE       "text" or 'text', in which \ makes the next character plain; a number; a plain word; a date such as
                2024-05-31 or 2024-05-31T12:00:00Z
    together    and, or, not, parentheses; `not` binds closest, then `and`

`contains` disregards upper and lower case. A condition on `caption` is met if any caption meets it. What is not known
is the empty text; a picture without a date or a place meets no condition on it. `taken` is the time that the camera's
clock showed where it was, so that a value has no time zone. `near` means inside the smallest box of latitudes and
longitudes that holds everything up to the distance. Every filter is true or false for every picture, so that `not`
gives exactly the others.

A filter never becomes part of a query's text. `parse` makes it a tree of a few kinds of nodes over the columns of
`rows.COLUMNS`, and each store turns the nodes into expression objects or bound parameters.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from diptych.config import nearest
from diptych.data.sources.stray_bytes import stored
from diptych.errors import SettingsError
from diptych.search.stores.image_rows import (
    UNKNOWN_MOMENT,
    UNKNOWN_PLACE,
    UNKNOWN_TIME,
    mark,
    microseconds,
    millionths,
)

Operator = Literal["=", "!=", "<", "<=", ">", ">="]

MOST_CHARACTERS = 4096
MOST_CONDITIONS = 100
DEEPEST = 20  # parentheses and `not` inside one another


@dataclass(frozen=True, slots=True)
class Compare:
    """A column against a value of its type. Texts are ordered by code point."""

    column: str
    operator: Operator
    value: str | int


@dataclass(frozen=True, slots=True)
class OneOf:
    """A text column is one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contains:
    """A text column has `text` in it, character for character."""

    column: str
    text: str


@dataclass(frozen=True, slots=True)
class CompareColumns:
    """Two columns of numbers against each other."""

    left: str
    operator: Operator
    right: str


@dataclass(frozen=True, slots=True)
class Together:
    """All of the parts, or any of them; at least one part."""

    how: Literal["all", "any"]
    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """Every picture that `part` leaves out."""

    part: "Filter"


Filter: TypeAlias = Compare | OneOf | Contains | CompareColumns | Together | Not

_TEXT_FIELDS = ("id", "uri", "source", "caption", "label", "sha256", "camera")
_FOLDED = {"uri": "uri_folded", "caption": "caption_folded", "camera": "camera_folded"}
_NUMBER_FIELDS = ("width", "height", "bytes")
_DEGREES = {"latitude": 90, "longitude": 180}
_SHAPES: dict[str, Operator] = {"landscape": ">", "portrait": "<", "square": "="}
FIELDS = (
    *_TEXT_FIELDS,
    *_NUMBER_FIELDS,
    *_DEGREES,
    "place",
    "taken",
    "modified",
    "shape",
    "tag",
    "meta.NAME",
)

_EQUAL = ("=", "!=", "in")
_ORDER = ("<", "<=", ">", ">=")
_OPERATORS = (*_EQUAL, *_ORDER, "starts", "contains", "near")
_KM_A_DEGREE = 111.195  # of latitude, on a sphere of the radius 6371 km
_NEAR = re.compile(r"\s*([^,\s]+)\s*[,\s]\s*([^,\s]+)\s*[,\s]\s*([0-9.]+)\s*(m|km)\s*", re.ASCII)
_LAST = "\U0010ffff"
_MAX_INTEGER = 2**31 - 1, 2**63 - 1

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign><=|>=|!=|=|<|>|\(|\)|,)
      | (?P<word>[^\s"'<>=!(),]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_EVALUATE: dict[str, Callable[[str | int, str | int], bool]] = {
    "=": lambda found, value: found == value,
    "!=": lambda found, value: found != value,
    "<": lambda found, value: found < value,  # type: ignore[operator]
    "<=": lambda found, value: found <= value,  # type: ignore[operator]
    ">": lambda found, value: found > value,  # type: ignore[operator]
    ">=": lambda found, value: found >= value,  # type: ignore[operator]
}


def parse(text: str) -> Filter:
    """The filter that `text` says.

    Raises:
        SettingsError: it is not well formed; the message quotes the place and what was expected.
    """
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(f"filter of {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    return _Parser(text).parse()


def condition(field: str, operator: str, *values: str | int) -> Filter:
    """One condition from a field, an operator and its value (for `in`, values), as `parse` would read them.

    Raises:
        SettingsError: they do not go together.
    """
    if field in _TEXT_FIELDS:
        return _text(field, operator, values)
    if field in _NUMBER_FIELDS:
        _expect_operator(field, operator, (*_EQUAL, *_ORDER))
        limit = _MAX_INTEGER[field == "bytes"]
        return _equal_or(operator, [Compare(field, "=", _integer(field, value, limit)) for value in values])
    if field in _DEGREES:
        _expect_operator(field, operator, _ORDER)
        return _known(field, operator, _millionths(field, values[0]), UNKNOWN_PLACE)
    if field == "place":
        _expect_operator(field, operator, ("near",))
        return _near(str(values[0]))
    if field == "modified":
        return _modified(operator, values)
    if field == "taken":
        _expect_operator(field, operator, _ORDER)
        return _known(field, operator, _clock(str(values[0])), UNKNOWN_MOMENT)
    if field == "shape":
        _expect_operator(field, operator, _EQUAL)
        return _equal_or(operator, [_shape(value) for value in values])
    if field == "tag" or field.startswith("meta."):
        _expect_operator(field, operator, _EQUAL)
        lines = [stored(f"\n{mark(field, str(value))}\n") for value in values]
        return _equal_or(operator, [Contains("marks", line) for line in lines])
    raise SettingsError(f"filter: no field {field!r}: {nearest(field, FIELDS)}")


def matches(filter_: Filter, row: Mapping[str, str | int]) -> bool:
    """Whether a row meets a filter: what the stores do, said in Python."""
    match filter_:
        case Compare(column, operator, value):
            return _EVALUATE[operator](row[column], value)
        case OneOf(column, values):
            return row[column] in values
        case Contains(column, text):
            return text in str(row[column])
        case CompareColumns(left, operator, right):
            return _EVALUATE[operator](row[left], row[right])
        case Together(how, parts):
            return (all if how == "all" else any)(matches(part, row) for part in parts)
        case Not(part):
            return not matches(part, row)


def columns_of(filter_: Filter) -> frozenset[str]:
    """The columns that a filter reads."""
    match filter_:
        case Compare(column) | OneOf(column) | Contains(column):
            return frozenset({column})
        case CompareColumns(left, _, right):
            return frozenset({left, right})
        case Together(_, parts):
            return frozenset().union(*map(columns_of, parts))
        case Not(part):
            return columns_of(part)


def _text(field: str, operator: str, values: tuple[str | int, ...]) -> Filter:
    _expect_operator(field, operator, (*_EQUAL, "starts", *(("contains",) if field in _FOLDED else ())))
    texts = [stored(str(value)) for value in values]
    match operator:
        case "starts":
            start = Compare(field, ">=", texts[0])
            found: Filter = Together("all", (start, Compare(field, "<=", texts[0] + _LAST)))
            return _or_further(found, field, values, end="")
        case "contains":
            return Contains(_FOLDED[field], stored(str(values[0]).casefold()))
        case "in":
            return _or_further(OneOf(field, tuple(texts)), field, values)
        case _:
            return _equal_or(operator, [_or_further(Compare(field, "=", texts[0]), field, values)])


def _or_further(first: Filter, field: str, values: tuple[str | int, ...], *, end: str = "\n") -> Filter:
    """`first` says it of a text, which for `caption` is the first one; the further captions are lines of `marks`."""
    if field != "caption":
        return first
    lines = [Contains("marks", stored(f"\n{mark('caption', str(value))}{end}")) for value in values if value]
    return Together("any", (first, *lines)) if lines else first


def _equal_or(operator: str, equal: list[Filter]) -> Filter:
    """`equal` says `= value` for each value; the same with the operator that was asked for."""
    match operator:
        case "=":
            return equal[0]
        case "!=":
            return Not(equal[0])
        case "in":
            return Together("any", tuple(equal))
        case "<" | "<=" | ">" | ">=" if isinstance(equal[0], Compare):
            return Compare(equal[0].column, operator, equal[0].value)
    raise AssertionError(operator)


def _modified(operator: str, values: tuple[str | int, ...]) -> Filter:
    _expect_operator("modified", operator, _ORDER)
    moment = _moment("modified", str(values[0]))
    try:
        utc = moment.astimezone(UTC) if moment.tzinfo else moment
    except OverflowError:  # the first or the last day that there is, in another zone
        utc = moment
    return _known("mtime_ns", operator, 1_000 * microseconds(utc), UNKNOWN_TIME)


def _known(column: str, operator: str, value: int, unknown: int) -> Filter:
    """A column of numbers against a value; not met where the number is not known."""
    known = Compare(column, "!=", unknown)
    return Together("all", (known, _equal_or(operator, [Compare(column, "=", value)])))


def _moment(field: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"filter: {field}: {text!r} is not a date; expected one such as 2024-05-31 or 2024-05-31T18:30"
        ) from None


def _clock(text: str) -> int:
    moment = _moment("taken", text)
    if moment.tzinfo is not None:
        raise SettingsError(
            f"filter: taken: {text!r} names a time zone; expected the time that the camera's clock showed, without "
            "one, such as 2024-05-31T18:30"
        )
    return microseconds(moment)


def _millionths(field: str, value: str | int) -> int:
    most = _DEGREES[field]
    text = str(value)
    if not re.fullmatch(r"[+-]?\d{1,3}(\.\d{1,6})?", text, re.ASCII) or abs(float(text)) > most:
        raise SettingsError(
            f"filter: {field}: {value!r}; expected degrees from -{most} to {most}, with at most 6 decimals"
        )
    return millionths(text)


def _near(text: str) -> Filter:
    """The square around a place. It may reach over a pole, which has every longitude, and over the 180th meridian."""
    found = _NEAR.fullmatch(text)
    if found is None or not found[3].replace(".", "", 1).isdigit():
        raise SettingsError(
            f'filter: place near {text!r}; expected latitude, longitude and distance, such as "47.377, 8.54, 5 km"'
        )
    latitude, longitude = _millionths("latitude", found[1]), _millionths("longitude", found[2])
    reach = float(found[3]) / (1000 if found[4] == "m" else 1) / _KM_A_DEGREE  # degrees
    if not 0 < reach <= 180:
        raise SettingsError(f"filter: place near {text!r}: expected a distance above 0, at most 20,000 km")
    up = round(1_000_000 * reach)
    rows = _between("latitude", latitude - up, latitude + up)
    furthest = abs(latitude) / 1_000_000 + reach
    if furthest >= 90:
        return rows
    # Where meridians lie closest together, at the side that is nearer to a pole, the same way is more degrees.
    aside = round(1_000_000 * reach / math.cos(math.radians(furthest)))
    if aside >= 180_000_000:
        return rows
    west, east = longitude - aside, longitude + aside
    columns = [_between("longitude", west, east)]
    if west < -180_000_000:
        columns.append(_between("longitude", west + 360_000_000, 180_000_000))
    if east > 180_000_000:
        columns.append(_between("longitude", -180_000_000, east - 360_000_000))
    return Together("all", (rows, Together("any", tuple(columns))))


def _between(column: str, least: int, most: int) -> Filter:
    return Together("all", (Compare(column, ">=", least), Compare(column, "<=", most)))


def _integer(field: str, value: str | int, limit: int) -> int:
    if not re.fullmatch(r"-?\d{1,19}", str(value)) or abs(int(value)) > limit:
        raise SettingsError(f"filter: {field}: {value!r} is not a whole number; expected one up to {limit:,}")
    return int(value)


def _shape(value: str | int) -> Filter:
    if value not in _SHAPES:
        raise SettingsError(f"filter: shape: {nearest(str(value), tuple(_SHAPES))}")
    return CompareColumns("width", _SHAPES[str(value)], "height")


def _expect_operator(field: str, operator: str, allowed: tuple[str, ...]) -> None:
    if operator not in allowed:
        raise SettingsError(f"filter: {field} {operator}: expected one of {' '.join(allowed)}")


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._conditions = 0

    def parse(self) -> Filter:
        found = self._any(0)
        if self._at < len(self._tokens):
            raise self._wrong("`and`, `or` or the end")
        return found

    def _any(self, depth: int) -> Filter:
        return self._joined("or", "any", lambda: self._all(depth))

    def _all(self, depth: int) -> Filter:
        return self._joined("and", "all", lambda: self._one(depth))

    def _joined(self, word: str, how: Literal["all", "any"], part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._skip("word", word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Together(how, tuple(parts))

    def _one(self, depth: int) -> Filter:
        if depth > DEEPEST:
            raise SettingsError(f"filter: more than {DEEPEST} parentheses or `not` inside one another")
        if self._skip("word", "not"):
            return Not(self._one(depth + 1))
        if self._skip("sign", "("):
            found = self._any(depth + 1)
            self._expect(")")
            return found
        return self._condition()

    def _condition(self) -> Filter:
        field = self._take("word", "a field")
        kind, operator = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind == "text" or operator.lower() not in _OPERATORS:
            raise self._wrong(f"one of {' '.join(_OPERATORS)} after {field!r}")
        self._at += 1
        operator = operator.lower()
        return condition(field, operator, *(self._values() if operator == "in" else [self._value()]))

    def _values(self) -> list[str]:
        self._expect("(")
        values = [self._value()]
        while self._skip("sign", ","):
            values.append(self._value())
        self._expect(")")
        return values

    def _value(self) -> str:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise SettingsError(f"filter: more than {MOST_CONDITIONS} conditions and values")
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "text":
            return self._take("text", "a value")
        return self._take("word", "a value")

    def _take(self, kind: str, expected: str) -> str:
        if self._at == len(self._tokens) or self._tokens[self._at][0] != kind:
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _skip(self, kind: str, value: str) -> bool:
        if self._at == len(self._tokens):
            return False
        found = self._tokens[self._at]
        if found[0] != kind or found[1].lower() != value:
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._skip("sign", sign):
            raise self._wrong(f"`{sign}`")

    def _wrong(self, expected: str) -> SettingsError:
        found = repr(self._tokens[self._at][1]) if self._at < len(self._tokens) else "the end"
        return SettingsError(f"filter: {_shown(self._text)}: found {found}; expected {expected}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kind and value of each token; a quoted text without its quotes and escapes."""
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise SettingsError(f"filter: {_shown(text)}: cannot read {_shown(text[at:].strip())}")
        at = found.end()
        kind = found.lastgroup or ""
        value = found[kind]
        yield kind, re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if kind == "text" else value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
