"""The numbers of the page of Figure 13 that the package does not make."""

from pathlib import Path

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_mean_of_sets_is_as_certain_as_the_draws_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from figure13 import mean_count  # noqa: PLC0415

    accuracies, counts = (0.9, 0.4, 0.6), (500, 7000, 90)
    generator = np.random.default_rng(0)
    drawn = np.mean(
        [generator.binomial(n, a, 200_000) / n for a, n in zip(accuracies, counts, strict=True)], axis=0
    )
    mean = float(np.mean(accuracies))
    equivalent = mean_count(accuracies, counts)
    # The relative error of a variance of 200,000 draws is 0.3 %.
    assert mean * (1 - mean) / equivalent == pytest.approx(drawn.var(), rel=0.02)
    assert mean_count((0.3,), (123,)) == pytest.approx(123)
