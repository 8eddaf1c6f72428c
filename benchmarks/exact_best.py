"""The best rows of a collection for each query, by comparing with every vector, while the vectors come by in parts."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class ExactBest:
    """The `count` rows with the highest cosine for each query, among the parts that were added.

    queries: (queries, dim) of unit length.
    """

    def __init__(self, queries: Floats, count: int) -> None:
        self._queries, self._count, self._added = queries, count, 0
        self._scores = np.full((len(queries), count), -2, np.float32)
        self._rows = np.full((len(queries), count), -1, np.int64)

    def add(self, part: NDArray[np.floating]) -> None:
        """Compare the next rows (rows, dim), in float32; their length need not be 1."""
        wide = part.astype(np.float32)
        found = self._queries @ (wide / np.linalg.norm(wide, axis=1, keepdims=True)).T
        numbers = np.broadcast_to(np.arange(self._added, self._added + len(part)), found.shape)
        scores, rows = np.hstack([self._scores, found]), np.hstack([self._rows, numbers])
        order = np.argpartition(-scores, self._count - 1, axis=1)[:, : self._count]
        self._scores, self._rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        self._added += len(part)

    def rows(self) -> list[set[int]]:
        """Return the numbers of the best rows for each query, in the order of adding."""
        return [set(map(int, one)) - {-1} for one in self._rows]

    def cosines(self) -> Floats:
        """Return the cosines of the best rows, best first: (queries, count)."""
        best: Floats = -np.sort(-self._scores, axis=1)
        return best
