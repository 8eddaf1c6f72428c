"""Maximal marginal relevance."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.search.diversity import diversify


def results(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, best first, and unit vectors."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, 4)).astype(np.float32)
    scores = np.sort(random.uniform(0.1, 0.6, count).astype(np.float32))[::-1]
    return scores, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_definition(scores: np.ndarray, vectors: np.ndarray, diversity: float) -> list[int]:
    """Carbonell and Goldstein 1998, with Sim1 the score, Sim2 the cosine, lambda = 1 - diversity."""
    chosen: list[int] = []
    left = list(range(len(scores)))
    while left:
        worth = {
            row: (1 - diversity) * float(scores[row])
            - diversity * max((float(np.dot(vectors[row], vectors[other])) for other in chosen), default=0.0)
            for row in left
        }
        chosen.append(max(left, key=lambda row: (worth[row], -row)))
        left.remove(chosen[-1])
    return chosen


@settings(deadline=None)  # a busy machine is not a failure
@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_the_order_equals_a_slow_loop(seed: int, count: int, diversity: float) -> None:
    scores, vectors = results(seed, count)
    assert diversify(scores, vectors, diversity) == by_definition(scores, vectors, diversity)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.floats(0, 1))
def test_every_result_comes_once_and_the_best_comes_first(seed: int, count: int, diversity: float) -> None:
    order = diversify(*results(seed, count), diversity)
    assert sorted(order) == list(range(count))
    assert order[0] == 0


def test_without_diversity_the_order_stays() -> None:
    assert diversify(*results(0, 25), 0.0) == list(range(25))


def test_equal_pictures_come_last_with_full_diversity() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert diversify(scores, vectors, 1.0) == [0, 3, 2, 1]


def test_the_nearest_chosen_result_counts_and_not_the_last_one() -> None:
    # After 0 and 1, row 2 is as 0 again: a loop that looks at the last chosen alone would take it before 3.
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.99, 0, 0.14], [0, 0.6, 0.8]], np.float32)
    scores = np.array([0.9, 0.89, 0.85, 0.84], np.float32)
    assert diversify(scores, vectors, 0.5) == [0, 1, 3, 2]


def test_diversity_takes_from_each_of_several_kinds() -> None:
    # Three kinds of nearly equal pictures; the first has the ten best scores.
    random = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], 10)
    vectors = (np.eye(3)[kinds] + random.normal(size=(30, 3)) * 0.02).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.linspace(0.5, 0.3, 30).astype(np.float32)
    first = {diversity: kinds[diversify(scores, vectors, diversity)[:3]] for diversity in (0.0, 0.5)}
    assert first[0.0].tolist() == [0, 0, 0]
    assert sorted(first[0.5].tolist()) == [0, 1, 2]
