"""Group results that show the same image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Images whose vectors have this cosine or more count as duplicates; docs/search.md has the measurement.
SAME = 0.97


def duplicate_groups(
    vectors: NDArray[np.float32], hashes: Sequence[str], *, threshold: float = SAME
) -> list[list[int]]:
    """Group the indices of rows that show the same image; each group begins with its first row.

    vectors: (n, dim), unit length, best result first. hashes: n, of the files; rows with equal ones are always grouped.

    Row by row: a row joins the group of an earlier row with its hash; else the first group whose first row has a cosine
    of at least `threshold` with it; else it begins a group. Only first rows are compared, so likeness does not chain:
    every member resembles the image that is shown for the group. The first rows and their order do not depend on later
    rows: longer results only add to the groups.
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
