from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.order import batches, epoch_order

PARTS = st.lists(st.integers(1, 9), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)  # a busy machine is not a failure
@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 5), parts=PARTS)
def test_an_epoch_sees_every_example_once(seed: int, epoch: int, parts: list[int]) -> None:
    order = epoch_order(seed, epoch, parts, np.ones(sum(parts)))
    assert sorted(order.tolist()) == list(range(sum(parts)))


@settings(deadline=None, max_examples=40)  # a busy machine is not a failure
@given(parts=PARTS, position=st.integers(0, 90), size=st.integers(1, 9))
def test_the_stream_from_a_position_is_the_rest_of_the_whole_stream(
    parts: list[int], position: int, size: int
) -> None:
    weights = np.linspace(0.5, 2.5, sum(parts))
    singles = np.concatenate(list(islice(batches(3, parts, weights, 1, 0), position + 5 * size)))
    resumed = np.concatenate(list(islice(batches(3, parts, weights, size, position), 5)))
    assert resumed.tolist() == singles[position:].tolist()


def test_weights_are_the_mean_number_of_times_an_example_is_seen() -> None:
    weights = np.array([0.0, 0.25, 1.0, 2.5])
    seen = (
        sum(np.bincount(epoch_order(0, epoch, [4], weights), minlength=4) for epoch in range(4_000)) / 4_000
    )
    assert seen[0] == 0
    assert seen[2] == 1
    # Three standard errors of a coin's mean over 4,000 tosses are 0.024.
    np.testing.assert_allclose(seen, weights, atol=0.024)


def test_examples_of_a_group_of_parts_stay_together() -> None:
    parts = [10] * 32
    first_half = set(epoch_order(0, 0, parts, np.ones(320))[:160] // 10)
    assert len(first_half) == 16


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [tuple(epoch_order(seed, epoch, [50], np.ones(50))) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
