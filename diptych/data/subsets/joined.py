"""Join several sources into one."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from diptych.data.example import Example
from diptych.data.left_out import all_left_out, left_out_of
from diptych.errors import DataError

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source


class JoinedSource:
    """The examples of several sources, in the order of the list.

    labels: one per source, all different; they go before the keys, which are unique only within their source.
    """

    def __init__(self, sources: Sequence["Source"], labels: Sequence[str], *, name: str) -> None:
        if not sources or len(set(labels)) != len(sources):
            raise DataError(
                f"{name}: expected at least one source, and different names; found {list(labels)}"
            )
        self.name = name
        self.left_out = all_left_out(map(left_out_of, sources))
        self._sources = tuple(sources)
        self._labels = tuple(labels)
        self._ends = list(accumulate(map(len, sources)))

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the number of examples of each part of each source."""
        return tuple(count for source in self._sources for count in parts_of(source))

    @property
    def fingerprint(self) -> str:
        """Hash the fingerprints of the sources, in order."""
        return hashlib.sha256(":".join(source.fingerprint for source in self._sources).encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: int, /) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        number = bisect_right(self._ends, position)
        example = self._sources[number][position - (self._ends[number - 1] if number else 0)]
        return replace(example, key=f"{self._labels[number]}/{example.key}")

    def describe(self) -> str:
        """Summarise what was found in each source."""
        return "\n".join(source.describe() for source in self._sources)


def parts_of(source: "Source") -> tuple[int, ...]:
    """Return the number of examples of each contiguous part of a source; one part if the source has no `parts`."""
    return tuple(getattr(source, "parts", (len(source),)))
