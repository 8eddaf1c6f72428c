"""The order of training examples: a pure function of the seed, so that a run resumes exactly."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_PARTS_TOGETHER = 16
_MASK = (1 << 64) - 1


def epoch_order(
    seed: int,
    epoch: int,
    parts: Sequence[int],
    weights: npt.NDArray[np.float64],
    mixed: Sequence[int] = (),
) -> Indices:
    """Return the indices of the examples of one epoch, in order.

    parts: the number of examples of each contiguous part of the source (its shards). The parts are permuted, then
        the examples inside groups of `_PARTS_TOGETHER` parts, so that reads stay near each other on the disk.
    weights: (examples,) how often an example is seen in an epoch, on average: 2.5 is twice or three times, drawn
        from the seed and the epoch; 0 is never.
    mixed: the number of parts of each source of a mixture. Each source then has an order of its own. The orders are
        interleaved evenly, so that every stretch of the epoch has the proportions of the whole. The number of
        examples from a source is the sum of its weights, rounded up.
    """
    if len(mixed) > 1:
        return _interleave(seed, epoch, parts, weights, mixed)
    random = np.random.default_rng((seed, epoch))
    times = np.floor(weights + random.random(len(weights))).astype(np.int64)
    return _shuffle(random, parts, times)


def batches(
    seed: int,
    parts: Sequence[int],
    weights: npt.NDArray[np.float64],
    size: int,
    position: int,
    *,
    mixed: Sequence[int] = (),
) -> Iterator[Indices]:
    """Yield batches of `size` indices without end, starting at the `position`-th example of the run.

    Batches cross the ends of epochs, so that each one is full and the position is a single number.
    """
    left = position
    epoch = 0
    order = epoch_order(seed, epoch, parts, weights, mixed)
    while left >= len(order):
        left -= len(order)
        epoch += 1
        order = epoch_order(seed, epoch, parts, weights, mixed)
    order = order[left:]
    while True:
        while len(order) < size:
            epoch += 1
            order = np.concatenate([order, epoch_order(seed, epoch, parts, weights, mixed)])
        yield order[:size]
        order = order[size:]


def row_seeds(seed: int, position: int, count: int) -> Indices:
    """Return a seed in 0..2^63-1 for each of `count` samples, starting at the `position`-th of the run.

    This is SplitMix64 (Steele, Lea and Flood 2014), whose n-th number depends on the seed and n alone. The lowest bit
    is dropped, because torch takes seeds as signed integers.
    """
    numbers = np.arange(position + 1, position + 1 + count, dtype=np.uint64)
    # On arrays: unsigned arithmetic modulo 2^64, without the warning that single numbers give.
    state = np.full(count, seed & _MASK, np.uint64) + numbers * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    seeds: Indices = ((state ^ (state >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return seeds


def _shuffle(random: np.random.Generator, parts: Sequence[int], times: Indices) -> Indices:
    """Repeat every example `times` (examples,) times, and shuffle inside groups of shuffled parts."""
    starts = np.concatenate([[0], np.cumsum(parts)])
    together: list[Indices] = []
    shuffled = random.permutation(len(parts))
    for group in range(0, len(shuffled), _PARTS_TOGETHER):
        chosen = [
            np.repeat(np.arange(starts[part], starts[part + 1]), times[starts[part] : starts[part + 1]])
            for part in shuffled[group : group + _PARTS_TOGETHER]
        ]
        together.append(random.permutation(np.concatenate(chosen)))
    return np.concatenate(together)


def _interleave(
    seed: int, epoch: int, parts: Sequence[int], weights: npt.NDArray[np.float64], mixed: Sequence[int]
) -> Indices:
    orders: list[Indices] = []
    times_of_day: list[npt.NDArray[np.float64]] = []
    part = first = 0
    for number, count in enumerate(mixed):
        own = parts[part : part + count]
        size = sum(own)
        random = np.random.default_rng((seed, epoch, number))
        order = _shuffle(random, own, _exact_times(random, weights[first : first + size]))
        orders.append(order + first)
        # One moment in each of equal slots between 0 and 1, so that no source comes in bursts.
        times_of_day.append((np.arange(len(order)) + random.random(len(order))) / max(1, len(order)))
        part, first = part + count, first + size
    return np.concatenate(orders)[np.argsort(np.concatenate(times_of_day), kind="stable")]


def _exact_times(random: np.random.Generator, weights: npt.NDArray[np.float64]) -> Indices:
    """Round `weights` to whole numbers whose mean is `weights` and whose sum is the sum of the weights, rounded up.

    Systematic sampling: the fractions are laid end to end in a random order. Marks at distance one, from a random
    start, select the weights that are rounded up.
    """
    times = np.floor(weights)
    laid = random.permutation(len(weights))
    marks = np.floor(random.random() + np.cumsum((weights - times)[laid]))
    times[laid] += np.diff(marks, prepend=0)
    return times.astype(np.int64)
