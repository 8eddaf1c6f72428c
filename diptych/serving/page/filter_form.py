"""Translate the fields of the filter form into the language of `diptych.search.stores.filter_syntax`."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, fields

from diptych.errors import SettingsError
from diptych.search.stores.filter_syntax import parse

SHAPES = ("landscape", "portrait", "square")


@dataclass(frozen=True, slots=True)
class Filters:
    """The fields of the form as they were typed; empty if not filled in."""

    name: str = ""  # part of the path
    caption: str = ""  # part of the caption
    label: str = ""
    tags: str = ""  # separated by commas; an image must have all of them
    shape: str = ""  # one of SHAPES
    width: str = ""  # pixels, at least
    height: str = ""
    taken_from: str = ""  # first day by the camera's clock, as 2024-05-31
    taken_to: str = ""  # last day
    camera: str = ""  # part of its name
    near: str = ""  # latitude, longitude and distance, as "47.377, 8.54, 5 km"
    after: str = ""  # first day of the file's last change, as 2024-05-31, UTC
    before: str = ""  # last day
    filter: str = ""  # a condition in the filter language

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def active(self) -> dict[str, str]:
        """Return the fields that are filled in."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}

    def text(self) -> str | None:
        """Combine all conditions in the filter language; None if there are none.

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
        for name, condition in _TEXTS.items():
            if value := getattr(self, name):
                yield f"{condition} {quoted(value)}"
        for tag in self.tags.split(","):
            if tag.strip():
                yield f"tag = {quoted(tag.strip())}"
        for name, (field, is_first) in _DAYS.items():
            if value := getattr(self, name):
                day = _day(name, value) if is_first else _day_after(name, value)
                yield f"{field} {'>=' if is_first else '<'} {day.isoformat()}"
        if self.filter:
            # Parse it alone first: `a) or (b` would be valid inside the parentheses.
            parse(self.filter)
            yield f"({self.filter})"


# Fields of the form, and what they are compared with.
_TEXTS = {
    "name": "uri contains",
    "caption": "caption contains",
    "label": "label =",
    "shape": "shape =",
    "width": "width >=",
    "height": "height >=",
    "camera": "camera contains",
    "near": "place near",
}
# Days: the field of the language, and whether it is the first day or the last.
_DAYS = {
    "taken_from": ("taken", True),
    "taken_to": ("taken", False),
    "after": ("modified", True),
    "before": ("modified", False),
}


def quoted(value: str) -> str:
    """Quote `value` for the filter language."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _day(field: str, value: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise SettingsError(
            f"filter: {field}: {value!r} is not a date; expected a date such as 2024-05-31"
        ) from None


def _day_after(field: str, value: str) -> datetime.date:
    day = _day(field, value)
    # The last date that Python knows has no day after it.
    return min(day, datetime.date.max - datetime.timedelta(1)) + datetime.timedelta(1)
