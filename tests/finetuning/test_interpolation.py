"""Weights between two models."""

import pytest
import torch

from diptych.errors import CheckpointError, SettingsError
from diptych.weights.interpolation import interpolate_weights

FIRST = {
    "a": torch.tensor([1.0, float("inf")]),
    "count": torch.tensor(3),
    "h": torch.tensor([1.0], dtype=torch.float16),
}
SECOND = {
    "a": torch.tensor([3.0, 5.0]),
    "count": torch.tensor(9),
    "h": torch.tensor([2.0], dtype=torch.float16),
}


def test_the_ends_are_the_models_to_the_bit_even_beside_an_infinity() -> None:
    for alpha, expected in ((0, FIRST), (1, SECOND)):
        found = interpolate_weights(FIRST, SECOND, alpha)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert found["a"] is not expected["a"]


def test_floating_numbers_are_blended_and_counters_are_not() -> None:
    found = interpolate_weights(
        {"a": FIRST["a"][:1], "count": FIRST["count"]}, {"a": SECOND["a"][:1], "count": SECOND["count"]}, 0.25
    )
    assert found["a"].item() == 1.5
    assert (found["count"].item(), found["count"].dtype) == (9, torch.int64)
    assert interpolate_weights(FIRST, SECOND, 0.5)["h"].dtype == torch.float16


def test_other_tensors_other_shapes_and_other_shares_are_refused() -> None:
    with pytest.raises(CheckpointError, match="b occur in only one"):
        interpolate_weights(FIRST, {**SECOND, "b": torch.zeros(1)}, 0.5)
    with pytest.raises(CheckpointError, match="a occur in only one, or differ in shape"):
        interpolate_weights(FIRST, {**SECOND, "a": torch.zeros(3)}, 0.5)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="fraction of the fine-tuned weights"):
            interpolate_weights(FIRST, SECOND, alpha)
