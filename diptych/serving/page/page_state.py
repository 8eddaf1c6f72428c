"""The state of the page, as its address describes it: all of it is in the query string, so a link is enough.

    ?q=red+heart&q=balloon&q_weight=1&q_weight=0.5&not=stop+sign&like=ID&tags=toy&min=0.3&offset=48

    q, not            texts that results should be like, or unlike; may be repeated
    like, unlike      the same with images of the index, by id
    picture, notpicture  the same with uploaded images (`diptych.serving.page.query_images`)
    X_weight          the weights of the field X, in order; default 1, or 0.2 for what is unwanted
    name ... filter   the fields of `diptych.serving.page.filter_form.Filters`
    min, hide         matches below this score are weak; hide=1 leaves them out
    unique, variety   group duplicates; 0 (best matches) to 100 (most varied)
    sort              newest or oldest, by the time when images were taken; turns variety off
    offset            number of results before the first one shown

`State.read` takes what a form sends. `State.query` writes its one short form; reading that gives the same state.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args
from urllib.parse import urlencode

from diptych.search.query import DEEPEST, LARGEST_WEIGHT, MOST_PARTS, UNWANTED, Sort
from diptych.serving.page.filter_form import Filters

Kind = Literal["q", "like", "picture"]

# Divisible by 2, 3, 4, 6 and 8: the last row of a full page is full at most widths.
PAGE = 48
MOST_CHARACTERS = 2000  # of one field
WANTED = 1.0

_NAMES: dict[str, tuple[Kind, int]] = {
    "q": ("q", 1),
    "not": ("q", -1),
    "like": ("like", 1),
    "unlike": ("like", -1),
    "picture": ("picture", 1),
    "notpicture": ("picture", -1),
}
_NEGATIVE = {kind: name for name, (kind, sign) in _NAMES.items() if sign < 0}
_NO_FILTERS = Filters()
_FILTERS = tuple(field.name for field in fields(Filters))


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the query. `value` is a text, the id of an image, or the token of an uploaded image."""

    kind: Kind
    value: str
    weight: float = 1.0  # negative: what is not wanted

    @property
    def name(self) -> str:
        """Return the name of its field in the query string."""
        return self.kind if self.weight > 0 else _NEGATIVE[self.kind]

    @property
    def strength(self) -> str:
        """Return the weight without its sign, in its shortest form."""
        return shortest(abs(self.weight))

    @property
    def is_usual(self) -> bool:
        """Return whether the weight is the default."""
        return self.weight == _usual(self.weight)

    def turned(self) -> "Term":
        """Return the term with its sign turned. A default weight becomes the other default."""
        return replace(self, weight=_usual(-self.weight) if self.is_usual else -self.weight)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that decides what is shown."""

    terms: tuple[Term, ...] = ()
    filters: Filters = _NO_FILTERS
    min_score: float | None = None
    hide_weak: bool = False
    unique: bool = False
    variety: int = 0  # 0..100
    offset: int = 0
    sort: Sort | None = None

    @classmethod
    def read(cls, pairs: Sequence[tuple[str, str]]) -> tuple["State", tuple[str, ...]]:
        """Read the state from a query string or a form. Return it with a list of the mistakes.

        Fields with mistakes are left out; unknown fields are ignored.
        """
        reader = _Reader(pairs)
        filters = Filters(**{name: reader.one(name) for name in _FILTERS})
        sort = reader.sort()
        state = cls(
            terms=reader.terms(),
            filters=filters,
            min_score=reader.number("min", -1, 1),
            hide_weak=reader.one("hide") == "1",
            unique=reader.one("unique") == "1",
            variety=0 if sort else int(reader.number("variety", 0, 100) or 0),
            sort=sort,
            offset=int(reader.number("offset", 0, DEEPEST - PAGE) or 0),
        )
        return state, tuple(reader.problems)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the fields of the query string in a fixed order, without empty ones."""
        found: list[tuple[str, str]] = []
        for name in _NAMES:
            terms = [term for term in self.terms if term.name == name]
            found += [(name, term.value) for term in terms]
            if not all(term.is_usual for term in terms):
                found += [(f"{name}_weight", term.strength) for term in terms]
        found += self.filters.active().items()
        if self.min_score is not None:
            found.append(("min", shortest(self.min_score)))
        found += [
            (name, str(int(value)))
            for name, value in (
                ("hide", self.hide_weak),
                ("unique", self.unique),
                ("variety", self.variety),
                ("offset", self.offset),
            )
            if value
        ]
        if self.sort is not None:
            found.append(("sort", self.sort))
        return found

    def query(self) -> str:
        """Return the query string with its `?`; empty for the start page."""
        return f"?{encoded}" if (encoded := urlencode(self.pairs(), errors="replace")) else ""

    def first_page(self) -> "State":
        return replace(self, offset=0)

    def with_term(self, term: Term) -> "State":
        """Return the state with one more part, which replaces a part with the same value."""
        others = [one for one in self.terms if (one.kind, one.value) != (term.kind, term.value)]
        return replace(self, terms=(*others, term), offset=0)

    def without_term(self, term: Term) -> "State":
        return replace(self, terms=tuple(one for one in self.terms if one != term), offset=0)

    def similar_to(self, id_: str) -> "State":
        """Return the search for images similar to one, with the same filters and without the other parts."""
        return State(terms=(Term("like", id_),), filters=self.filters, unique=self.unique)

    def excluding(self, id_: str) -> "State":
        """Return the search without that image, with similar images ranked lower."""
        return self.with_term(Term("like", id_, UNWANTED))


def shortest(number: float) -> str:
    """Format a number with up to three decimals."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


class _Reader:
    """Read fields by name and collect their mistakes."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.strip())
        self.problems: list[str] = []

    def one(self, name: str) -> str:
        """Return the last value that is not empty."""
        value = next((value for value in reversed(self._values.get(name, [])) if value), "")
        return value if self._fits(name, value) else ""

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self.one(name)
        if not value:
            return None
        number = _float(value)
        if not least <= number <= most:
            self.problems.append(f"{name}: {_quote(value)}; expected a number from {least:g} to {most:g}")
            return None
        return round(number, 3)

    def sort(self) -> Sort | None:
        value = self.one("sort")
        for sort in get_args(Sort):
            if value == sort:
                return sort  # type: ignore[no-any-return]
        if value:
            self.problems.append(f"sort: {_quote(value)}; expected newest or oldest")
        return None

    def terms(self) -> tuple[Term, ...]:
        found = dict.fromkeys(term for name in _NAMES for term in self._named(name))
        if len(found) > MOST_PARTS:
            self.problems.append(
                f"query: found {len(found)} parts; expected at most {MOST_PARTS}: only the first {MOST_PARTS} are used"
            )
        return tuple(found)[:MOST_PARTS]

    def _named(self, name: str) -> Iterator[Term]:
        kind, sign = _NAMES[name]
        weights = self._values.get(f"{name}_weight", [])
        for place, value in enumerate(self._values.get(name, [])):
            if value and self._fits(name, value):
                weight = weights[place] if place < len(weights) else ""
                yield Term(kind, value, self._weight(name, sign, weight))

    def _weight(self, name: str, sign: int, value: str) -> float:
        usual = _usual(sign)
        if not value:
            return usual
        number = round(_float(value), 3)
        if 0 < number <= LARGEST_WEIGHT:
            return sign * number
        self.problems.append(
            f"weight of {name}: {_quote(value)}; expected a number above 0 and at most {LARGEST_WEIGHT:g}; "
            f"{shortest(abs(usual))} is used instead"
        )
        return usual

    def _fits(self, name: str, value: str) -> bool:
        if len(value) <= MOST_CHARACTERS:
            return True
        self.problems.append(
            f"{name}: {len(value):,} characters; expected at most {MOST_CHARACTERS:,}; shorten it"
        )
        return False


def _usual(sign: float) -> float:
    """Return the default weight of a wanted (positive sign) or an unwanted part."""
    return WANTED if sign > 0 else UNWANTED


def _float(value: str) -> float:
    """Return the number, or NaN, which is in no range, for a text that is not a number."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _quote(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")
