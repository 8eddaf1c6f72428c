r"""Parse the text of a filter, a condition on images.

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

`contains` ignores case. A condition on `caption` is met if any caption meets it. An unknown text is empty; an image
without a date or a place meets no condition on it. `taken` is the local time of the camera's clock, so its values have
no time zone. `near` means inside the smallest box of latitudes and longitudes that contains everything up to the
distance. Every filter is true or false for every image, so `not` gives exactly the others.

A filter never becomes part of the text of a database query. `parse` turns it into a tree of a few kinds of nodes over
the columns of `image_rows.COLUMNS`, and each store turns the nodes into expression objects or bound parameters.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from diptych.errors import SettingsError
from diptych.search.stores.filter_fields import OPERATORS, condition
from diptych.search.stores.filters import Combination, Filter, Negation

MOST_CHARACTERS = 4096
MOST_CONDITIONS = 100
DEEPEST = 20  # nested parentheses and `not`

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign><=|>=|!=|=|<|>|\(|\)|,)
      | (?P<word>[^\s"'<>=!(),]+)
    )""",
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> Filter:
    """Parse a filter.

    Raises:
        SettingsError: it is not well formed; the message quotes what was found and what was expected.
    """
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(f"filter of {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    return _Parser(text).parse()


class _Parser:
    """A recursive descent parser with one token of lookahead."""

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
        return self._join("or", "any", lambda: self._all(depth))

    def _all(self, depth: int) -> Filter:
        return self._join("and", "all", lambda: self._one(depth))

    def _join(self, word: str, how: Literal["all", "any"], part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._skip("word", word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Combination(how, tuple(parts))

    def _one(self, depth: int) -> Filter:
        if depth > DEEPEST:
            raise SettingsError(f"filter: more than {DEEPEST} nested parentheses or `not`; simplify it")
        if self._skip("word", "not"):
            return Negation(self._one(depth + 1))
        if self._skip("sign", "("):
            found = self._any(depth + 1)
            self._expect(")")
            return found
        return self._condition()

    def _condition(self) -> Filter:
        field = self._take("word", "a field")
        kind, operator = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind == "text" or operator.lower() not in OPERATORS:
            raise self._wrong(f"one of {' '.join(OPERATORS)} after {field!r}")
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
            raise SettingsError(f"filter: more than {MOST_CONDITIONS} conditions and values; shorten it")
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
    """Yield the kind and the value of each token; a quoted text without its quotes and escapes."""
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
