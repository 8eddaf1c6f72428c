"""The order in which training sees its examples: a pure function of the seed, so that a run resumes exactly."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def epoch_order(seed: int, epoch: int, parts: Sequence[int], weights: npt.NDArray[np.float64]) -> Indices:
    """The examples of one epoch, in order.

    parts: the number of examples of each contiguous part of the source (its shards). The parts are permuted, then
        the examples inside groups of `_PARTS_TOGETHER` parts, so that reads stay near each other on the disk.
    weights: (examples,) how often an example is seen in an epoch, on average: 2.5 is twice or three times, by a
        coin of the seed and the epoch; 0 is never.
    """
    random = np.random.default_rng((seed, epoch))
    times = np.floor(weights + random.random(len(weights))).astype(np.int64)
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


def batches(
    seed: int, parts: Sequence[int], weights: npt.NDArray[np.float64], size: int, position: int
) -> Iterator[Indices]:
    """Batches of `size` examples without end, from the `position`-th example of the run on.

    Batches run across the ends of epochs, so that every one is full and the position is a single number.
    """
    left = position
    epoch = 0
    order = epoch_order(seed, epoch, parts, weights)
    while left >= len(order):
        left -= len(order)
        epoch += 1
        order = epoch_order(seed, epoch, parts, weights)
    order = order[left:]
    while True:
        while len(order) < size:
            epoch += 1
            order = np.concatenate([order, epoch_order(seed, epoch, parts, weights)])
        yield order[:size]
        order = order[size:]


_PARTS_TOGETHER = 16
