"""What a classifier says of images, against a loop over them."""

import numpy as np
import pytest
import torch

from diptych.evaluation.zero_shot import answers


def test_answers_equal_a_slow_loop_and_do_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    # Small whole numbers tie often, and are exact in any order of summing.
    images = generator.integers(-1, 2, (50, 4)).astype(np.float32)
    weights = torch.from_numpy(generator.integers(-1, 2, (4, 9)).astype(np.float32))
    target = generator.integers(0, 9, 50)
    whole = answers.answers(images, weights, target, 2.0)
    for row, (column, similarity) in enumerate(zip(target, images @ weights.numpy(), strict=True)):
        ranked = sorted((-value, other) for other, value in enumerate(similarity.tolist()))
        order = [other for _, other in ranked]
        assert whole.ranks[row] == order.index(column)
        assert whole.predicted[row] == order[0]
        assert whole.tied[row] == (similarity.tolist().count(similarity[column]) > 1)
        odds = np.exp(2 * similarity)
        assert whole.probability[row] == pytest.approx(odds.max() / odds.sum(), rel=1e-5)
    assert 0 < whole.tied.mean() < 1
    monkeypatch.setattr(answers, "_IMAGES_AT_ONCE", 7)
    for one, other in zip(whole, answers.answers(images, weights, target, 2.0), strict=True):
        np.testing.assert_array_equal(one, other)
