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

    Row after row: a row joins the first group whose first row it has at least the cosine `threshold` with, or that has
    a file with its hash; otherwise it begins a group. Only first rows count, so that likeness does not chain: whatever
    is grouped is like the picture that is shown for it. What the first rows are, and in which order, does not
    depend on the rows that follow: longer results only add to the groups.
    """
    found: list[list[int]] = []
    firsts = np.empty_like(vectors)
    group_of_hash: dict[str, int] = {}
    for row, (vector, hash_) in enumerate(zip(vectors, hashes, strict=True)):
        alike = np.flatnonzero(firsts[: len(found)] @ vector >= threshold)
        places = [int(place) for place in alike[:1]]
        if hash_ in group_of_hash:
            places.append(group_of_hash[hash_])
        if places:
            place = min(places)
            found[place].append(row)
        else:
            place = len(found)
            firsts[place] = vector
            found.append([row])
        group_of_hash.setdefault(hash_, place)
    return found
