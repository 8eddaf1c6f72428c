"""Make a condition of a filter from a field, an operator and a value."""

import math
import re
from datetime import UTC, datetime

from diptych.config import nearest
from diptych.data.sources.stray_bytes import stored
from diptych.errors import SettingsError
from diptych.search.stores.filters import (
    ColumnComparison,
    Combination,
    Comparison,
    Containment,
    Filter,
    Membership,
    Negation,
    Operator,
)
from diptych.search.stores.image_rows import (
    UNKNOWN_MOMENT,
    UNKNOWN_PLACE,
    UNKNOWN_TIME,
    mark_line,
    microseconds,
    millionths,
)

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
OPERATORS = (*_EQUAL, *_ORDER, "starts", "contains", "near")
_KM_A_DEGREE = 111.195  # of latitude, on a sphere of the radius 6371 km
_NEAR = re.compile(r"\s*([^,\s]+)\s*[,\s]\s*([^,\s]+)\s*[,\s]\s*([0-9.]+)\s*(m|km)\s*", re.ASCII)
_LAST = "\U0010ffff"
_MAX_INTEGER = 2**31 - 1, 2**63 - 1


def condition(field: str, operator: str, *values: str | int) -> Filter:
    """Make one condition from a field, an operator and its value (for `in`, values), as `parse` reads them.

    Raises:
        SettingsError: the field does not have the operator or the value.
    """
    if field in _TEXT_FIELDS:
        return _text(field, operator, values)
    if field in _NUMBER_FIELDS:
        _expect_operator(field, operator, (*_EQUAL, *_ORDER))
        limit = _MAX_INTEGER[field == "bytes"]
        return _equal_or(
            operator, [Comparison(field, "=", _integer(field, value, limit)) for value in values]
        )
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
        lines = [stored(f"\n{mark_line(field, str(value))}\n") for value in values]
        return _equal_or(operator, [Containment("marks", line) for line in lines])
    raise SettingsError(f"filter: unknown field {field!r}; {nearest(field, FIELDS)}")


def _text(field: str, operator: str, values: tuple[str | int, ...]) -> Filter:
    _expect_operator(field, operator, (*_EQUAL, "starts", *(("contains",) if field in _FOLDED else ())))
    texts = [stored(str(value)) for value in values]
    match operator:
        case "starts":
            start = Comparison(field, ">=", texts[0])
            found: Filter = Combination("all", (start, Comparison(field, "<=", texts[0] + _LAST)))
            return _or_further(found, field, values, end="")
        case "contains":
            return Containment(_FOLDED[field], stored(str(values[0]).casefold()))
        case "in":
            return _or_further(Membership(field, tuple(texts)), field, values)
        case _:
            return _equal_or(operator, [_or_further(Comparison(field, "=", texts[0]), field, values)])


def _or_further(first: Filter, field: str, values: tuple[str | int, ...], *, end: str = "\n") -> Filter:
    """Extend a condition on the first caption to the further captions, which are lines of `marks`."""
    if field != "caption":
        return first
    lines = [
        Containment("marks", stored(f"\n{mark_line('caption', str(value))}{end}"))
        for value in values
        if value
    ]
    return Combination("any", (first, *lines)) if lines else first


def _equal_or(operator: str, equal: list[Filter]) -> Filter:
    """Turn conditions `= value` into one with the given operator."""
    match operator:
        case "=":
            return equal[0]
        case "!=":
            return Negation(equal[0])
        case "in":
            return Combination("any", tuple(equal))
        case "<" | "<=" | ">" | ">=" if isinstance(equal[0], Comparison):
            return Comparison(equal[0].column, operator, equal[0].value)
    raise AssertionError(operator)


def _modified(operator: str, values: tuple[str | int, ...]) -> Filter:
    _expect_operator("modified", operator, _ORDER)
    moment = _moment("modified", str(values[0]))
    try:
        utc = moment.astimezone(UTC) if moment.tzinfo else moment
    except OverflowError:  # the first or the last possible day, in another zone
        utc = moment
    return _known("mtime_ns", operator, 1_000 * microseconds(utc), UNKNOWN_TIME)


def _known(column: str, operator: str, value: int, unknown: int) -> Filter:
    """Compare a column of numbers with a value; unknown numbers do not match."""
    known = Comparison(column, "!=", unknown)
    return Combination("all", (known, _equal_or(operator, [Comparison(column, "=", value)])))


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
            f"filter: taken: {text!r} has a time zone; expected the local time of the camera's clock, without a time "
            "zone, such as 2024-05-31T18:30"
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
    """Return the box around a place. It may reach over a pole, which has every longitude, or the 180th meridian."""
    found = _NEAR.fullmatch(text)
    if found is None or not found[3].replace(".", "", 1).isdigit():
        raise SettingsError(
            f'filter: place near {text!r}; expected latitude, longitude and distance, such as "47.377, 8.54, 5 km"'
        )
    latitude, longitude = _millionths("latitude", found[1]), _millionths("longitude", found[2])
    reach = float(found[3]) / (1000 if found[4] == "m" else 1) / _KM_A_DEGREE  # degrees
    if not 0 < reach <= 180:
        raise SettingsError(f"filter: place near {text!r}; expected a distance above 0, at most 20,000 km")
    up = round(1_000_000 * reach)
    rows = _between("latitude", latitude - up, latitude + up)
    furthest = abs(latitude) / 1_000_000 + reach
    if furthest >= 90:
        return rows
    # On the side nearer to a pole, where meridians lie closest together, the same distance is more degrees.
    aside = round(1_000_000 * reach / math.cos(math.radians(furthest)))
    if aside >= 180_000_000:
        return rows
    west, east = longitude - aside, longitude + aside
    columns = [_between("longitude", west, east)]
    if west < -180_000_000:
        columns.append(_between("longitude", west + 360_000_000, 180_000_000))
    if east > 180_000_000:
        columns.append(_between("longitude", -180_000_000, east - 360_000_000))
    return Combination("all", (rows, Combination("any", tuple(columns))))


def _between(column: str, least: int, most: int) -> Filter:
    return Combination("all", (Comparison(column, ">=", least), Comparison(column, "<=", most)))


def _integer(field: str, value: str | int, limit: int) -> int:
    if not re.fullmatch(r"-?\d{1,19}", str(value)) or abs(int(value)) > limit:
        raise SettingsError(f"filter: {field}: {value!r} is not a whole number; expected one up to {limit:,}")
    return int(value)


def _shape(value: str | int) -> Filter:
    if value not in _SHAPES:
        raise SettingsError(f"filter: shape: unknown value {value!r}; {nearest(str(value), tuple(_SHAPES))}")
    return ColumnComparison("width", _SHAPES[str(value)], "height")


def _expect_operator(field: str, operator: str, allowed: tuple[str, ...]) -> None:
    if operator not in allowed:
        raise SettingsError(f"filter: {field} {operator}; expected one of the operators {' '.join(allowed)}")
