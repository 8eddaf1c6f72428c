"""Count the data that a command does not use, by reason, with the first names of each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from diptych.printable import printable_name

NAMED = 3  # names that are kept for each reason
ORPHAN = "caption file without an image"
TOO_LARGE = "image too large"
HIDDEN = "hidden"  # counted like the rest, but never warned about: most systems write such files

# A remedy that the words of the reason do not already contain.
_REMEDIES = {TOO_LARGE: "; --max-pixels N decodes images of more pixels"}


class LeftOut(Mapping[str, int]):
    """Counts by reason, the most frequent first, with the first names of each.

    The mapping holds the counts alone. `remarks` tell decisions about the whole source, such as where its labels were
    read from.
    """

    def __init__(self, remarks: Iterable[str] = ()) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}
        self.remarks = tuple(remarks)

    def add(self, reason: str, name: str | None = None, count: int = 1) -> None:
        """Add `count` to a reason; `name` is the name of one of them."""
        if count < 1:
            return
        self._counts[reason] = self._counts.get(reason, 0) + count
        first = self._first.setdefault(reason, [])
        if name is not None and len(first) < NAMED:
            first.append(name)

    def first(self, reason: str) -> tuple[str, ...]:
        """Return the first names of a reason, at most `NAMED`; fewer if a source has only counts."""
        return tuple(self._first.get(reason, ()))

    def __getitem__(self, reason: str) -> int:
        return self._counts[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._counts, key=lambda reason: -self._counts[reason]))

    def __len__(self) -> int:
        return len(self._counts)

    def __or__(self, other: Mapping[str, int]) -> "LeftOut":
        """Return the sum of both, as `all_left_out` does."""
        return all_left_out([self, other])

    def __repr__(self) -> str:
        return f"LeftOut({dict(self)})"

    @property
    def total(self) -> int:
        """Return the count over all reasons."""
        return sum(self._counts.values())

    def warnings(self) -> list[str]:
        """Return the lines for stderr: the remarks, and one line for each reason except `HIDDEN`."""
        reasons = (
            f"left out {self._line(reason)}{_REMEDIES.get(reason, '')}" for reason in self if reason != HIDDEN
        )
        return [*self.remarks, *reasons]

    def lines(self) -> list[str]:
        """Return one line for each reason, as every command prints it: `2 (truncated image): a.jpg, b.jpg`."""
        return [self._line(reason) for reason in self]

    def _line(self, reason: str) -> str:
        return f"{self[reason]:,} ({reason}){self._named(reason)}"

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return `{reason: {"count": int, "first": [name, ...]}}`."""
        return {reason: {"count": self[reason], "first": list(self.first(reason))} for reason in self}

    @classmethod
    def from_json(cls, values: Mapping[str, Mapping[str, Any]]) -> "LeftOut":
        """Read what `to_json` returned."""
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
    """Return the sum of several; a plain mapping has counts without names."""
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
    """Return what a source left out when it was opened; empty for a source without the attribute."""
    found = getattr(source, "left_out", None)
    return found if isinstance(found, LeftOut) else LeftOut()
