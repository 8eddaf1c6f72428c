"""Which of the pictures found are the same picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Pictures whose vectors have this cosine or more count as duplicates; docs/search.md has what it was measured on.
SAME = 0.97


def groups(
    vectors: NDArray[np.float32], hashes: Sequence[str], *, threshold: float = SAME
) -> list[list[int]]:
    """The numbers of rows that show the same picture, together; each group begins with its first row.

    vectors: (n, dim), unit length, best result first. hashes: n, of the files; equal ones are always together.

    Row after row: a row goes where an earlier row with its hash is; else into the first group whose first row it has at
    least the cosine `threshold` with; else it begins a group. Only first rows count, so that likeness does not
    chain: whatever is grouped is like the picture that is shown for it. Which rows are first, and in which order, does
    not depend on the rows that follow: longer results only add to the groups.
    """
    found: list[list[int]] = []
    firsts = np.empty_like(vectors)
    place_of_hash: dict[str, int] = {}
    for row, (vector, hash_) in enumerate(zip(vectors, hashes, strict=True)):
        place = place_of_hash.get(hash_)
        if place is None:
            alike = np.flatnonzero(firsts[: len(found)] @ vector >= threshold)
            place = int(alike[0]) if len(alike) else len(found)
            place_of_hash[hash_] = place
        if place == len(found):
            firsts[place] = vector
            found.append([])
        found[place].append(row)
    return found
