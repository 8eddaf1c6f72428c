"""What the page shows, as its address says it: everything stands in the query string, so that a link is enough.

    ?q=red+heart&q=balloon&q_weight=1&q_weight=0.5&not=stop+sign&like=ID&tags=toy&min=0.3&offset=48

    q, not            words that a picture shall be like, or not; may be repeated
    like, unlike      the same with pictures of the index, by id
    picture, notpicture  the same with pictures that were uploaded a while ago (`diptych.serving.page.query_images`)
    X_weight          the weights of the X, in their order; where they are missing 1, and 0.2 of what is not wanted
    name ... filter   the fields of `diptych.serving.page.filter_form.Filters`
    min, hide         matches below this score are weak; hide=1 leaves them out
    unique, variety   duplicates as one stack; 0..100 of rearranging for unlike results
    sort              newest or oldest: by the time when pictures were taken, and then without variety
    offset            results before the first one shown

`State.read` takes what a form sends, and `State.query` writes the one short form of it: reading that gives the same
state again.
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
    """One part of the question. `value` is words, the id of a picture, or the token of an uploaded one."""

    kind: Kind
    value: str
    weight: float = 1.0  # negative: what is not wanted

    @property
    def name(self) -> str:
        """Of its field in the query string."""
        return self.kind if self.weight > 0 else _NEGATIVE[self.kind]

    @property
    def strength(self) -> str:
        """The weight without its sign, as short as it can be written."""
        return shortest(abs(self.weight))

    @property
    def is_usual(self) -> bool:
        """Whether the weight is the one that it has where none is given."""
        return self.weight == _usual(self.weight)

    def turned(self) -> "Term":
        """The same, not wanted instead of wanted or the other way round; a usual weight becomes the other usual one."""
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
        """The state that a query string or a form says, and what of it could not be read; that part is left out.

        Fields that the page does not know are passed over.
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
        """The fields of the query string, in their one order; none that says nothing."""
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
        """The query string, with its `?`; empty for the page as it first opens."""
        return f"?{encoded}" if (encoded := urlencode(self.pairs(), errors="replace")) else ""

    def first_page(self) -> "State":
        return replace(self, offset=0)

    def with_term(self, term: Term) -> "State":
        """With one more part, in place of one that says the same."""
        others = [one for one in self.terms if (one.kind, one.value) != (term.kind, term.value)]
        return replace(self, terms=(*others, term), offset=0)

    def without_term(self, term: Term) -> "State":
        return replace(self, terms=tuple(one for one in self.terms if one != term), offset=0)

    def similar_to(self, id_: str) -> "State":
        """Pictures like that one, in the same part of the index; words and other examples are left behind."""
        return State(terms=(Term("like", id_),), filters=self.filters, unique=self.unique)

    def excluding(self, id_: str) -> "State":
        """Without that picture, and with its like further down."""
        return self.with_term(Term("like", id_, UNWANTED))


def shortest(number: float) -> str:
    """A number to three decimals, without zeros at the end."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


class _Reader:
    """Fields by name, and what was wrong with them."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.strip())
        self.problems: list[str] = []

    def one(self, name: str) -> str:
        """The last value that is not empty."""
        value = next((value for value in reversed(self._values.get(name, [])) if value), "")
        return value if self._fits(name, value) else ""

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self.one(name)
        if not value:
            return None
        number = _float(value)
        if not least <= number <= most:
            self.problems.append(f"{name}: {_quoted(value)}; expected a number from {least:g} to {most:g}")
            return None
        return round(number, 3)

    def sort(self) -> Sort | None:
        value = self.one("sort")
        for sort in get_args(Sort):
            if value == sort:
                return sort  # type: ignore[no-any-return]
        if value:
            self.problems.append(f"sort: {_quoted(value)}; expected newest or oldest")
        return None

    def terms(self) -> tuple[Term, ...]:
        found = dict.fromkeys(term for name in _NAMES for term in self._named(name))
        if len(found) > MOST_PARTS:
            self.problems.append(
                f"a question of {len(found)} parts; expected at most {MOST_PARTS}: the first are used"
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
            f"weight of {name}: {_quoted(value)}; expected a number above 0, up to {LARGEST_WEIGHT:g}; "
            f"{shortest(abs(usual))} is used"
        )
        return usual

    def _fits(self, name: str, value: str) -> bool:
        if len(value) <= MOST_CHARACTERS:
            return True
        self.problems.append(f"{name}: {len(value):,} characters; expected at most {MOST_CHARACTERS:,}")
        return False


def _usual(sign: float) -> float:
    """The weight of a part that is wanted, or that is not, where none is given."""
    return WANTED if sign > 0 else UNWANTED


def _float(value: str) -> float:
    """NaN, which is in no range, for what is no number."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")
