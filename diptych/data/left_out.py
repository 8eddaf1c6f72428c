"""What a command does not use of its data: how much for each reason, and the first names."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from diptych.printable import printable_name

NAMED = 3  # names that are kept for each reason
ORPHAN = "caption file without an image"
TOO_LARGE = "image too large"
HIDDEN = "hidden"  # counted like the rest, but no reason for a warning: most systems write such files

# What a command can do about a reason, beside what the reason itself says.
_REMEDIES = {TOO_LARGE: "; --max-pixels N decodes images of more pixels"}


class LeftOut(Mapping[str, int]):
    """Counts by reason, the most frequent first, with the first names of each.

    As a mapping it gives the counts alone. `remarks` say what was decided about the whole source, such as which of two
    ways its labels were read.
    """

    def __init__(self, remarks: Iterable[str] = ()) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}
        self.remarks = tuple(remarks)

    def add(self, reason: str, name: str | None = None, count: int = 1) -> None:
        """Count one thing, or several, of which one is named."""
        if count < 1:
            return
        self._counts[reason] = self._counts.get(reason, 0) + count
        first = self._first.setdefault(reason, [])
        if name is not None and len(first) < NAMED:
            first.append(name)

    def first(self, reason: str) -> tuple[str, ...]:
        """The first names of a reason, at most `NAMED`; fewer where a source knows only numbers."""
        return tuple(self._first.get(reason, ()))

    def __getitem__(self, reason: str) -> int:
        return self._counts[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._counts, key=lambda reason: -self._counts[reason]))

    def __len__(self) -> int:
        return len(self._counts)

    def __or__(self, other: Mapping[str, int]) -> "LeftOut":
        """Both together, as `all_left_out`."""
        return all_left_out([self, other])

    def __repr__(self) -> str:
        return f"LeftOut({dict(self)})"

    @property
    def total(self) -> int:
        """Everything that was left out."""
        return sum(self._counts.values())

    def warnings(self) -> list[str]:
        """Return what a command says on stderr: the remarks, and a line for each reason but `HIDDEN`."""
        reasons = (
            f"left out {self._line(reason)}{_REMEDIES.get(reason, '')}" for reason in self if reason != HIDDEN
        )
        return [*self.remarks, *reasons]

    def lines(self) -> list[str]:
        """A line for each reason, as every command prints it: `2 (truncated image): a.jpg, b.jpg`."""
        return [self._line(reason) for reason in self]

    def _line(self, reason: str) -> str:
        return f"{self[reason]:,} ({reason}){self._named(reason)}"

    def to_json(self) -> dict[str, dict[str, Any]]:
        """`{reason: {"count": int, "first": [name, ...]}}`."""
        return {reason: {"count": self[reason], "first": list(self.first(reason))} for reason in self}

    @classmethod
    def from_json(cls, values: Mapping[str, Mapping[str, Any]]) -> "LeftOut":
        """What `to_json` gave."""
        found = cls()
        for reason, value in values.items():
            found._counts[reason] = int(value["count"])
            found._first[reason] = [str(name) for name in value["first"]]
        return found

    def _named(self, reason: str) -> str:
        first = self.first(reason)
        more = self[reason] - len(first)
        if not first:
            return ""
        return f": {', '.join(map(printable_name, first))}" + (f", and {more:,} more" if more else "")


def all_left_out(parts: Iterable[Mapping[str, int]]) -> LeftOut:
    """The sum of several; what knows no names brings its counts alone."""
    parts = list(parts)
    remarks = [remark for part in parts if isinstance(part, LeftOut) for remark in part.remarks]
    result = LeftOut(dict.fromkeys(remarks))
    for part in parts:
        for reason, count in part.items():
            names = part.first(reason) if isinstance(part, LeftOut) else ()
            for name in names:
                result.add(reason, name)
            result.add(reason, count=count - len(names))
    return result


def left_out_of(source: object) -> LeftOut:
    """What a source left out when it was opened; nothing for a source that says nothing of it."""
    found = getattr(source, "left_out", None)
    return found if isinstance(found, LeftOut) else LeftOut()
