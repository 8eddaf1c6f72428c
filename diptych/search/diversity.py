"""Rearrange results so that they differ from one another."""

import numpy as np
from numpy.typing import NDArray


def diversify(scores: NDArray[np.float32], vectors: NDArray[np.float32], diversity: float) -> list[int]:
    """Return the order of results by maximal marginal relevance.

    scores: (n,), the cosine of each row with the query. vectors: (n, dim), unit length. The next row is always the one
    with the largest

        (1 - diversity) * score - diversity * (largest cosine with a row chosen before; 0 for the first)

    and among equal ones the earliest. This is equation MMR of Carbonell and Goldstein 1998, "The use of MMR,
    diversity-based reranking for reordering documents and producing summaries", with lambda = 1 - diversity.
    """
    closest = np.zeros(len(vectors), np.float32)
    left = np.ones(len(vectors), np.bool_)
    order: list[int] = []
    while len(order) < len(vectors):
        worth = (1 - diversity) * scores - diversity * closest
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        order.append(best)
        left[best] = False
        cosines = vectors @ vectors[best]
        closest = cosines if len(order) == 1 else np.maximum(closest, cosines)
    return order
