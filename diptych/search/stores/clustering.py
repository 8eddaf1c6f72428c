"""Spherical k-means, for the partitions of an approximate index.

Dhillon and Modha, Concept decompositions for large sparse text data using clustering, 2001.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CHUNK = 16_384  # vectors compared with all centres at once


def spherical_kmeans(vectors: Floats, count: int, *, iterations: int = 10, seed: int = 0) -> Floats:
    """Return centres of unit length (count, dim), each in the direction of the sum of the vectors nearest to it.

    vectors: (n, dim) of unit length, n at least `count`; the start is `count` of them. A centre without vectors moves
    to one of the vectors that lie farthest from their own centre.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"{count} centres for {len(vectors)} vectors; expected from 1 to their number")
    start = np.random.default_rng(seed).choice(len(vectors), count, replace=False)
    centres = vectors[np.sort(start)]
    for _ in range(iterations):
        nearest, cosine = nearest_centres(vectors, centres)
        order = np.argsort(nearest, kind="stable")
        taken, first = np.unique(nearest[order], return_index=True)
        centres = np.empty_like(centres)
        centres[taken] = np.add.reduceat(vectors[order], first)
        empty = np.setdiff1d(np.arange(count), taken, assume_unique=True)
        centres[empty] = vectors[np.argsort(cosine, kind="stable")[: len(empty)]]
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return centres


def nearest_centres(
    vectors: npt.NDArray[np.floating], centres: Floats
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the index of the centre with the highest dot product for each vector (n,), and the product (n,)."""
    nearest = np.empty(len(vectors), np.int64)
    best = np.empty(len(vectors), np.float32)
    for first in range(0, len(vectors), CHUNK):
        products = vectors[first : first + CHUNK].astype(np.float32, copy=False) @ centres.T
        found = products.argmax(axis=1)
        nearest[first : first + CHUNK] = found
        best[first : first + CHUNK] = products[np.arange(len(found)), found]
    return nearest, best
