from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.order import batches, epoch_order, row_seeds

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
    orders = [epoch_order(0, epoch, [4], weights) for epoch in range(4_000)]
    seen = np.bincount(np.concatenate(orders), minlength=4) / 4_000
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


def test_seeds_are_the_published_numbers_of_splitmix64() -> None:
    # The first five for the seed 1234567, as published with the reference implementation; ours lack the lowest bit.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert row_seeds(1234567, 0, 5).tolist() == [number >> 1 for number in published]
    assert row_seeds(1234567, 3, 2).tolist() == row_seeds(1234567, 0, 5)[3:].tolist()


# --- mixtures ---------------------------------------------------------------------------------------------


def test_a_mixture_has_the_exact_number_of_examples_of_each_source() -> None:
    parts, weights = [10, 20, 40], np.repeat([2.0, 0.3], [30, 40])
    for epoch in range(20):
        order = epoch_order(5, epoch, parts, weights, mixed=[2, 1])
        assert np.bincount(order, minlength=70)[:30].tolist() == [2] * 30
        assert (order >= 30).sum() == 12
        assert np.bincount(order, minlength=70).max() == 2


def test_the_coin_of_a_single_source_misses_the_exact_number() -> None:
    # The control: without the sources' bounds the same weights give 12 on average only.
    counts = {len(epoch_order(5, epoch, [40], np.full(40, 0.3))) for epoch in range(20)}
    assert len(counts) > 1


def test_every_example_of_a_mixture_has_its_weight_on_average() -> None:
    weights = np.repeat([0.25, 1.5], [8, 6])
    seen = sum(
        np.bincount(epoch_order(0, epoch, [8, 6], weights, mixed=[1, 1]), minlength=14)
        for epoch in range(500)
    )
    # Three standard errors of a coin's mean over 500 tosses are 0.067.
    np.testing.assert_allclose(seen / 500, weights, atol=0.068)


@settings(deadline=None, max_examples=40)  # a busy machine is not a failure
@given(sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)), start=st.floats(0, 1), stop=st.floats(0, 1))
def test_every_stretch_of_a_mixture_has_its_proportions(
    sizes: tuple[int, int], start: float, stop: float
) -> None:
    total = sum(sizes)
    order = epoch_order(1, 0, sizes, np.ones(total), mixed=[1, 1])
    assert sorted(order.tolist()) == list(range(total))
    low, high = sorted((int(start * total), int(stop * total)))
    found = int((order[low:high] < sizes[0]).sum())
    # Equal slots bound the count of a source between any two moments by two around its share.
    assert abs(found - (high - low) * sizes[0] / total) < 2


def test_a_mixture_resumes_at_any_position() -> None:
    weights = np.repeat([2.0, 0.3], [30, 40])
    singles = np.concatenate(list(islice(batches(3, [30, 40], weights, 1, 0, mixed=[1, 1]), 200)))
    for position in (0, 1, 71, 72, 150):
        resumed = next(batches(3, [30, 40], weights, 9, position, mixed=[1, 1]))
        assert resumed.tolist() == singles[position : position + 9].tolist()
