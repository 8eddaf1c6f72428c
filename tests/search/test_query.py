"""The parts of a question, its formula, and the shape of its results."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import SettingsError
from diptych.search.query import UNWANTED, Match, QueryPart, Question, combine, result_of
from diptych.search.stores.image_rows import Item

DIM = 6
WEIGHTS = st.floats(0.1, 10) | st.floats(-10, -0.1)


def units(seed: int, count: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in general position, one to five, and their weights."""
    weights = draw(st.lists(WEIGHTS, min_size=1, max_size=5))
    return units(draw(st.integers(0, 2**32 - 1)), len(weights)), np.array(weights, np.float32)


@settings(deadline=None)  # a busy machine is not a failure
@given(questions())
def test_the_formula_equals_a_slow_loop(question: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, weights = question
    total = [0.0] * DIM
    for vector, weight in zip(vectors.tolist(), weights.tolist(), strict=True):
        for axis in range(DIM):
            total[axis] += weight * vector[axis]
    length = math.sqrt(sum(value * value for value in total))
    if length > 0.03 * sum(map(abs, weights.tolist())):
        assert combine(vectors, weights).tolist() == pytest.approx([x / length for x in total], abs=1e-5)


@settings(deadline=None)
@given(questions(), st.floats(0.1, 10))
def test_only_the_ratio_of_the_weights_counts(question: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    vectors, weights = question
    try:
        expected = combine(vectors, weights)
    except SettingsError:
        return
    np.testing.assert_allclose(combine(vectors, weights * np.float32(factor)), expected, atol=1e-4)
    np.testing.assert_allclose(combine(vectors[::-1], weights[::-1]), expected, atol=1e-4)
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 1000), WEIGHTS)
def test_one_part_is_its_own_vector_or_the_opposite(seed: int, weight: float) -> None:
    vectors = units(seed, 1)
    alone = combine(vectors, np.array([weight], np.float32))
    np.testing.assert_allclose(alone, math.copysign(1, weight) * vectors[0], atol=1e-6)


@settings(deadline=None)
@given(questions(), st.integers(0, 1000))
def test_a_score_is_the_weighted_sum_of_the_parts_cosines(
    question: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    vectors, weights = question
    (picture,) = units(seed, 1)
    length = np.linalg.norm(weights @ vectors)
    if length > 0.03 * np.abs(weights).sum():
        sum_of_cosines = sum(
            weight * (vector @ picture) for vector, weight in zip(vectors, weights, strict=True)
        )
        assert combine(vectors, weights) @ picture == pytest.approx(sum_of_cosines / length, abs=1e-4)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 50))
def test_parts_that_cancel_each_other_are_an_error(seed: int, weight: float) -> None:
    (vector,) = units(seed, 1)
    # What float16 and another batch make of the same picture.
    again = vector + np.random.default_rng(seed).normal(size=DIM).astype(np.float32) * 1e-3
    again /= np.linalg.norm(again)
    with pytest.raises(SettingsError, match="cancel each other"):
        combine(np.array([vector, again]), np.array([weight, -weight], np.float32))
    # Another weight leaves something over.
    combine(np.array([vector, again]), np.array([weight, -weight / 2], np.float32))


def test_vectors_that_are_not_finite_do_not_pass() -> None:
    with pytest.raises(SettingsError, match="cancel"):
        combine(np.full((1, DIM), np.nan, np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize(("vectors", "weights"), [((0, DIM), 0), ((2, DIM), 3), ((DIM,), DIM)])
def test_vectors_and_weights_have_to_go_together(vectors: tuple[int, ...], weights: int) -> None:
    with pytest.raises(ValueError, match="expected \\(n, dim\\)"):
        combine(np.ones(vectors, np.float32), np.ones(weights, np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one"),
        ({"text": "cat", "id": "0" * 32}, "exactly one"),
        ({"text": "cat", "image": b""}, "exactly one"),
        ({"text": " \n"}, "text is empty"),
        ({"text": "cat", "weight": 0.0}, "and not 0"),
        ({"text": "cat", "weight": math.nan}, "weight nan"),
        ({"text": "cat", "weight": math.inf}, "weight inf"),
        ({"text": "cat", "weight": -101.0}, "-100 to 100"),
    ],
)
def test_a_part_without_meaning_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        QueryPart(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parts": ()}, "nothing to search for"),
        ({"parts": (QueryPart(text="a"),) * 33}, "33 parts; expected at most 32"),
        ({"count": 0}, "at least 1 and 0"),
        ({"offset": -1}, "at least 1 and 0"),
        ({"count": 10, "offset": 9_991}, "at most the first 10,000"),
        ({"min_score": 1.5}, "minimum score 1.5"),
        ({"min_score": math.nan}, "minimum score nan"),
        ({"diversity": -0.1}, "diversity -0.1"),
        ({"diversity": math.nan}, "diversity nan"),
        ({"filter": "colour = red"}, "unknown field 'colour"),
    ],
)
def test_a_question_out_of_bounds_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Question(**{"parts": (QueryPart(text="cat"),), **values})


def test_what_is_not_wanted_counts_less_where_nobody_says() -> None:
    assert -1 < UNWANTED < 0


def test_results_have_the_shape_that_programs_rely_on() -> None:
    item = Item("1" * 32, "a.png", "s", 1, None, "", caption="a cat")
    other = Item("2" * 32, "b.png", "s", 1, None, "")
    assert json.loads(json.dumps(result_of(Match(item, 0.5, (other,))))) == {
        "id": "1" * 32,
        "uri": "a.png",
        "score": 0.5,
        "caption": "a cat",
        "captions": ["a cat"],
        "taken": None,
        "camera": None,
        "latitude": None,
        "longitude": None,
        "duplicates": [{"id": "2" * 32, "uri": "b.png"}],
    }
    assert result_of(Match(other, 0.5))["caption"] is None
