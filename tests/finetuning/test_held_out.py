"""The part that is kept from training, and classes that are seen more evenly."""

import numpy as np
import pytest

from diptych.data.subsets.held_out import held_out
from diptych.data.subsets.weighting import balancing
from diptych.errors import SettingsError

KEYS = [
    f"{label}/{number}"
    for label, count in (("a", 40), ("b", 5), ("c", 2), ("d", 1))
    for number in range(count)
]
LABELS = [key[0] for key in KEYS]


def test_every_class_gives_its_share_and_keeps_one_to_train_on() -> None:
    kept = held_out(KEYS, LABELS, 0.2)
    counts = {
        label: int(sum(kept[row] for row in range(len(KEYS)) if LABELS[row] == label)) for label in "abcd"
    }
    assert counts == {"a": 8, "b": 1, "c": 1, "d": 0}
    assert held_out(KEYS, LABELS, 0.99).sum() == 39 + 4 + 1


def test_the_part_depends_on_keys_alone() -> None:
    kept = {key for key, flag in zip(KEYS, held_out(KEYS, LABELS, 0.2), strict=True) if flag}
    order = np.random.default_rng(0).permutation(len(KEYS))
    shuffled = held_out([KEYS[row] for row in order], [LABELS[row] for row in order], 0.2)
    assert {KEYS[row] for row, flag in zip(order, shuffled, strict=True) if flag} == kept
    more = held_out([*KEYS, "e/0", "e/1"], [*LABELS, "e", "e"], 0.2)
    assert {key for key, flag in zip([*KEYS, "e/0", "e/1"], more, strict=True) if flag} - {
        "e/0",
        "e/1",
    } == kept


def test_nothing_is_held_out_of_nothing_asked_and_a_share_is_a_share() -> None:
    assert not held_out(KEYS, LABELS, 0.0).any()
    for share in (-0.1, 1.0):
        with pytest.raises(SettingsError, match="expected a fraction"):
            held_out(KEYS, LABELS, share)


def test_balance_shows_classes_alike_at_1_and_leaves_them_at_0() -> None:
    weights = np.ones(len(KEYS))
    weights[0] = 0.0
    for power in (0.0, 0.5, 1.0):
        factors = weights * balancing(LABELS, weights, power)
        seen = [sum(factors[row] for row in range(len(KEYS)) if LABELS[row] == label) for label in "abcd"]
        assert sum(seen) == pytest.approx(weights.sum())  # an epoch is as long
        counts = np.array([39, 5, 2, 1]) ** (1 - power)
        np.testing.assert_allclose(seen, counts * weights.sum() / counts.sum())
    with pytest.raises(SettingsError, match="balance"):
        balancing(LABELS, weights, 1.5)
