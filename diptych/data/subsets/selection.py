"""Select rows of a source by their metadata."""

import hashlib
from collections.abc import Mapping, Sequence

from diptych.data.example import Example
from diptych.data.left_out import left_out_of
from diptych.data.sources.opening import Source
from diptych.errors import DataError


class Selection:
    """The rows of a source at `positions`, as a source."""

    def __init__(self, source: Source, positions: Sequence[int], name: str) -> None:
        self.name = name
        self.left_out = left_out_of(source)
        self._source = source
        self._positions = positions

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._source.fingerprint} {list(self._positions)}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int, /) -> Example:
        return self._source[self._positions[position]]

    def describe(self) -> str:
        return f"{self.name}: {len(self):,} of {self._source.describe()}"


def select_rows(source: Source, conditions: Mapping[str, Sequence[str]]) -> Source:
    """Select the rows whose metadata have one of the given values, for every field of `conditions`.

    Raises:
        DataError: no row matches.
    """
    if not conditions:
        return source
    positions = [
        position
        for position in range(len(source))
        if all(str(source[position].metadata.get(field)) in values for field, values in conditions.items())
    ]
    said = " and ".join(f"{field} in {', '.join(values)}" for field, values in conditions.items())
    if not positions:
        raise DataError(f"{source.name}: no row with {said}; check the names in the data's metadata")
    return Selection(source, positions, f"{source.name} ({said})")
