"""What a person fills in, as a filter: fields of a form into the language of `diptych.search.stores.filters`."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, fields

from diptych.errors import SettingsError
from diptych.search.stores.filters import parse

SHAPES = ("landscape", "portrait", "square")


@dataclass(frozen=True, slots=True)
class Filters:
    """The fields, as they were typed; empty where nothing was."""

    name: str = ""  # part of the path
    caption: str = ""  # part of the caption
    label: str = ""
    tags: str = ""  # separated by commas; a picture has all of them
    shape: str = ""  # one of SHAPES
    width: str = ""  # pixels, at least
    height: str = ""
    after: str = ""  # first day, as 2024-05-31, UTC
    before: str = ""  # last day
    filter: str = ""  # a condition in the filter language

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def active(self) -> dict[str, str]:
        """The fields that are filled in."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}

    def text(self) -> str | None:
        """All conditions together in the filter language; None where there is none.

        Raises:
            SettingsError: a field cannot be read; the message begins with its name.
        """
        conditions = list(self._conditions())
        if not conditions:
            return None
        together = " and ".join(conditions)
        parse(together)
        return together

    def _conditions(self) -> Iterator[str]:
        if self.name:
            yield f"uri contains {quoted(self.name)}"
        if self.caption:
            yield f"caption contains {quoted(self.caption)}"
        if self.label:
            yield f"label = {quoted(self.label)}"
        for tag in self.tags.split(","):
            if tag.strip():
                yield f"tag = {quoted(tag.strip())}"
        if self.shape:
            yield f"shape = {quoted(self.shape)}"
        for side in ("width", "height"):
            if value := getattr(self, side):
                yield f"{side} >= {quoted(value)}"
        if self.after:
            yield f"modified >= {_day('after', self.after).isoformat()}"
        if self.before:
            yield f"modified < {_day_after('before', self.before).isoformat()}"
        if self.filter:
            # Alone first: `a) or (b` would be well formed between the parentheses.
            parse(self.filter)
            yield f"({self.filter})"


def quoted(value: str) -> str:
    """`value` as a text of the filter language."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _day(field: str, value: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise SettingsError(
            f"filter: {field}: {value!r} is no day; expected one such as 2024-05-31"
        ) from None


def _day_after(field: str, value: str) -> datetime.date:
    day = _day(field, value)
    # The last day that there is has no day after it, and no picture either.
    return min(day, datetime.date.max - datetime.timedelta(1)) + datetime.timedelta(1)
