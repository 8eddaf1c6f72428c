"""Grouping of pictures that are nearly the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.search.duplicates import SAME, duplicate_groups


@st.composite
def results(draw: st.DrawFn) -> tuple[np.ndarray, list[str]]:
    """Rows in clusters of all degrees of likeness, some of which share a file."""
    count, seed = draw(st.integers(0, 40)), draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 5))
    rows = centres[random.integers(6, size=count)] + random.normal(size=(count, 5)) * random.choice(
        [0.01, 0.2, 1]
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows, [str(number) for number in random.integers(60, size=count)]


def by_definition(vectors: np.ndarray, hashes: list[str], threshold: float) -> list[list[int]]:
    """Each row asks every group before it, first for its file, then for its likeness."""
    found: list[list[int]] = []
    for row in range(len(vectors)):
        of_its_file = [group for group in found if hashes[row] in [hashes[other] for other in group]]
        alike = [group for group in found if float(np.dot(vectors[group[0]], vectors[row])) >= threshold]
        for group in (of_its_file + alike)[:1]:
            group.append(row)
        if not of_its_file + alike:
            found.append([row])
    return found


@settings(deadline=None)  # a busy machine is not a failure
@given(results(), st.sampled_from([0.8, 0.97]))
def test_grouping_equals_a_slow_loop(result: tuple[np.ndarray, list[str]], threshold: float) -> None:
    vectors, hashes = result
    cosines = vectors @ vectors.T
    if not (np.abs(cosines - threshold) < 1e-5).any():
        assert duplicate_groups(vectors, hashes, threshold=threshold) == by_definition(
            vectors, hashes, threshold
        )


@settings(deadline=None)
@given(results())
def test_every_row_is_in_one_group_and_no_two_groups_are_alike(result: tuple[np.ndarray, list[str]]) -> None:
    vectors, hashes = result
    found = duplicate_groups(vectors, hashes)
    assert sorted(row for group in found for row in group) == list(range(len(vectors)))
    firsts = vectors[[group[0] for group in found]]
    assert (firsts @ firsts.T - 2 * np.eye(len(found)) < SAME + 1e-5).all()
    homes = {
        hashes[row]: {place for place, group in enumerate(found) if row in group}
        for row in range(len(hashes))
    }
    assert all(len(places) == 1 for places in homes.values())


@settings(deadline=None)
@given(results(), st.integers(0, 40))
def test_longer_results_only_add_to_the_groups(result: tuple[np.ndarray, list[str]], cut: int) -> None:
    vectors, hashes = result
    short, whole = duplicate_groups(vectors[:cut], hashes[:cut]), duplicate_groups(vectors, hashes)
    assert short == [[row for row in group if row < cut] for group in whole if group[0] < cut]


def test_equal_files_are_together_however_their_vectors_lie() -> None:
    vectors = np.eye(4, dtype=np.float32)
    assert duplicate_groups(vectors, ["a", "b", "a", "b"]) == [[0, 2], [1, 3]]


def test_a_file_follows_its_equal_into_the_group_that_this_joined() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert duplicate_groups(vectors, ["a", "b", "b"]) == [[0, 1, 2]]


def test_likeness_does_not_chain() -> None:
    # Each is like its neighbour; the third is not like the first.
    angles = np.arccos(SAME) * 0.9 * np.arange(3)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert duplicate_groups(vectors, ["a", "b", "c"]) == [[0, 1], [2]]


def test_the_threshold_itself_counts_as_alike() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert duplicate_groups(vectors, ["a", "b"], threshold=float(vectors[1, 0])) == [[0, 1]]
    with pytest.raises(ValueError, match="shorter"):
        duplicate_groups(vectors, ["a"])
