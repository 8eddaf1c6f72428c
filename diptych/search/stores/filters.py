"""Filters as trees of conditions on the columns of images, which each store turns into queries of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compare a column with a value of its type. Texts are ordered by code point."""

    column: str
    operator: Operator
    value: str | int


@dataclass(frozen=True, slots=True)
class Membership:
    """Match a text column that equals one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Containment:
    """Match a text column that contains `text`, character for character."""

    column: str
    text: str


@dataclass(frozen=True, slots=True)
class ColumnComparison:
    """Compare two columns of numbers with each other."""

    left: str
    operator: Operator
    right: str


@dataclass(frozen=True, slots=True)
class Combination:
    """Match all of the parts, or any of them; at least one part."""

    how: Literal["all", "any"]
    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Negation:
    """Match every image that `part` does not match."""

    part: "Filter"


Filter: TypeAlias = Comparison | Membership | Containment | ColumnComparison | Combination | Negation

_EVALUATE: dict[str, Callable[[str | int, str | int], bool]] = {
    "=": lambda found, value: found == value,
    "!=": lambda found, value: found != value,
    "<": lambda found, value: found < value,  # type: ignore[operator]
    "<=": lambda found, value: found <= value,  # type: ignore[operator]
    ">": lambda found, value: found > value,  # type: ignore[operator]
    ">=": lambda found, value: found >= value,  # type: ignore[operator]
}


def matches(filter_: Filter, row: Mapping[str, str | int]) -> bool:
    """Return whether a row meets a filter: the reference for the stores."""
    match filter_:
        case Comparison(column, operator, value):
            return _EVALUATE[operator](row[column], value)
        case Membership(column, values):
            return row[column] in values
        case Containment(column, text):
            return text in str(row[column])
        case ColumnComparison(left, operator, right):
            return _EVALUATE[operator](row[left], row[right])
        case Combination(how, parts):
            return (all if how == "all" else any)(matches(part, row) for part in parts)
        case Negation(part):
            return not matches(part, row)


def columns_of(filter_: Filter) -> frozenset[str]:
    """Return the columns that a filter reads."""
    match filter_:
        case Comparison(column) | Membership(column) | Containment(column):
            return frozenset({column})
        case ColumnComparison(left, _, right):
            return frozenset({left, right})
        case Combination(_, parts):
            return frozenset().union(*map(columns_of, parts))
        case Negation(part):
            return columns_of(part)
