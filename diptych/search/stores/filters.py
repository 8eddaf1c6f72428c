r"""Filters: conditions on what is known of a picture, as text that a person writes and as values that a store reads.

    width >= 1000 and (tag = "beach" or caption contains "sea") and not shape = portrait

    condition   FIELD OPERATOR VALUE, or FIELD in (VALUE, VALUE, ...)
    FIELD       text:   id, uri, source, caption, label, sha256      = != in starts; uri, caption also contains
                number: width, height, bytes                         = != in < <= > >=
                date:   modified (UTC)                               < <= > >=
                choice: shape (landscape, portrait, square)          = != in
                words:  tag, meta.NAME                               = != in
    VALUE       "text" or 'text', in which \ makes the next character plain; a number; a plain word; a date such as
                2024-05-31 or 2024-05-31T12:00:00Z
    together    and, or, not, parentheses; `not` binds closest, then `and`

`contains` disregards upper and lower case. What is not known is the empty text; a picture without a date meets no
condition on it. Every filter is true or false for every picture, so that `not` gives exactly the others.

A filter never becomes part of a query's text. `parse` makes it a tree of a few kinds of nodes over the columns of
`rows.COLUMNS`, and each store turns the nodes into expression objects or bound parameters.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from diptych.config import nearest
from diptych.data.stray_bytes import stored
from diptych.errors import SettingsError
from diptych.search.stores.rows import UNKNOWN_TIME, mark

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

_TEXT_FIELDS = ("id", "uri", "source", "caption", "label", "sha256")
_FOLDED = {"uri": "uri_folded", "caption": "caption_folded"}
_NUMBER_FIELDS = ("width", "height", "bytes")
_SHAPES: dict[str, Operator] = {"landscape": ">", "portrait": "<", "square": "="}
FIELDS = (*_TEXT_FIELDS, *_NUMBER_FIELDS, "modified", "shape", "tag", "meta.NAME")

_EQUAL = ("=", "!=", "in")
_ORDER = ("<", "<=", ">", ">=")
_OPERATORS = (*_EQUAL, *_ORDER, "starts", "contains")
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
    if field == "modified":
        return _modified(operator, values)
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


def _text(field: str, operator: str, values: tuple[str | int, ...]) -> Filter:
    _expect_operator(field, operator, (*_EQUAL, "starts", *(("contains",) if field in _FOLDED else ())))
    texts = [stored(str(value)) for value in values]
    match operator:
        case "starts":
            start = Compare(field, ">=", texts[0])
            return Together("all", (start, Compare(field, "<=", texts[0] + _LAST)))
        case "contains":
            return Contains(_FOLDED[field], stored(str(values[0]).casefold()))
        case "in":
            return OneOf(field, tuple(texts))
        case _:
            return _equal_or(operator, [Compare(field, "=", texts[0])])


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
    moment = _nanoseconds(str(values[0]))
    known = Compare("mtime_ns", "!=", UNKNOWN_TIME)
    return Together("all", (known, _equal_or(operator, [Compare("mtime_ns", "=", moment)])))


def _nanoseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"filter: modified: {text!r} is no date; expected one such as 2024-05-31"
        ) from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    # By whole numbers: a float of seconds would lose the last digits.
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _integer(field: str, value: str | int, limit: int) -> int:
    if not re.fullmatch(r"-?\d{1,19}", str(value)) or abs(int(value)) > limit:
        raise SettingsError(f"filter: {field}: {value!r} is no whole number up to {limit:,}")
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
