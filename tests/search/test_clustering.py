import faiss
import numpy as np
import pytest

from diptych.search.stores import clustering
from diptych.search.stores.clustering import nearest_centres, spherical_kmeans


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float32)


def clouds(count: int, parts: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(parts, 16)))
    return unit(centres[random.integers(parts, size=count)] + 0.2 * random.normal(size=(count, 16)))


def by_the_definition(vectors: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
    """One vector and one centre at a time, in double precision; no part may run empty."""
    start = np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))
    centres = [vectors[place].astype(np.float64) for place in start]
    for _ in range(iterations):
        sums = [np.zeros(vectors.shape[1]) for _ in range(count)]
        for vector in vectors:
            sums[max(range(count), key=lambda place: float(vector @ centres[place]))] += vector
        centres = [total / np.linalg.norm(total) for total in sums]
    return np.stack(centres)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_centres_are_those_of_the_definition(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "CHUNK", 37)
    vectors = clouds(300, 7, seed)
    found = spherical_kmeans(vectors, 7, iterations=5, seed=seed)
    # Sums of some 40 unit vectors in single precision: each is off by no more than 40 roundings of 6e-8.
    np.testing.assert_allclose(found, by_the_definition(vectors, 7, 5, seed), atol=3e-6)


def test_the_parts_are_as_tight_as_those_of_faiss() -> None:
    vectors = clouds(4000, 40)
    found = spherical_kmeans(vectors, 40)
    peer = faiss.Kmeans(16, 40, niter=10, spherical=True, seed=0)
    peer.train(vectors)
    assert peer.centroids is not None
    tight, of_peer = (nearest_centres(vectors, centres)[1].mean() for centres in (found, peer.centroids))
    at_random = nearest_centres(vectors, vectors[:40])[1].mean()
    # They start from different vectors, and so end in different optima: nearly as much is won over the first 40.
    assert abs(tight - of_peer) < 0.1 * (of_peer - at_random)


def test_an_empty_part_gets_one_of_the_vectors_that_lie_farthest_from_their_own() -> None:
    """Of four vectors that are all the same and one that differs, two centres can start at the same place."""
    vectors = np.tile(unit(np.ones((1, 4))), (5, 1))
    vectors[4] = [1, 0, 0, 0]
    for seed in range(10):
        found = spherical_kmeans(vectors, 2, iterations=3, seed=seed)
        assert sorted(nearest_centres(vectors, found)[0].tolist()) in ([0, 0, 0, 0, 1], [0, 1, 1, 1, 1])


def test_half_precision_is_compared_in_single() -> None:
    vectors = clouds(100, 3)
    nearest, cosine = nearest_centres(vectors.astype(np.float16), vectors[:3])
    products = vectors.astype(np.float16).astype(np.float32) @ vectors[:3].T
    assert nearest.tolist() == products.argmax(axis=1).tolist()
    np.testing.assert_array_equal(cosine, products.max(axis=1))


@pytest.mark.parametrize("count", [0, 6])
def test_more_centres_than_vectors_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} centres for 5 vectors"):
        spherical_kmeans(clouds(5, 2), count)
