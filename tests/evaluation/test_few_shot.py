"""Few-shot probes: what is drawn, how the strength is chosen, and where they cross zero-shot."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from diptych.errors import DataError, SettingsError
from diptych.evaluation.probes.few_shot import (
    Crossing,
    crossing,
    evaluate_few_shot,
    one_shot_strength,
    sample,
    t_interval,
)
from tests.evaluation.probe_digits import labelled_digits

TARGET = np.random.default_rng(5).permutation(np.repeat(np.arange(7), [20, 30, 16, 40, 17, 50, 99]))


@pytest.mark.parametrize("shots", [1, 2, 16])
def test_a_sample_has_so_many_of_each_class_none_twice(shots: int) -> None:
    rows = sample(TARGET, shots, seed=1)
    assert TARGET[rows].tolist() == np.repeat(np.arange(7), shots).tolist()
    assert len(set(rows.tolist())) == len(rows)


def test_samples_of_one_seed_contain_each_other() -> None:
    drawn = [set(sample(TARGET, shots, seed=2).tolist()) for shots in (1, 2, 4, 8, 16)]
    for smaller, larger in pairwise(drawn):
        assert smaller < larger


def test_a_seed_draws_the_same_again_and_another_seed_something_else() -> None:
    assert (sample(TARGET, 4, seed=3) == sample(TARGET, 4, seed=3)).all()
    assert set(sample(TARGET, 4, seed=3).tolist()) != set(sample(TARGET, 4, seed=4).tolist())


def test_a_class_is_drawn_the_same_whatever_the_others_are() -> None:
    without = TARGET.copy()
    without[TARGET == 6] = 5
    before = sample(TARGET, 3, seed=0).reshape(7, 3)
    assert (sample(without, 3, seed=0).reshape(6, 3)[:5] == before[:5]).all()


@pytest.mark.parametrize(
    ("zero_shot", "expected"),
    [
        # Accuracy 0.2, 0.4, 0.6 at 1, 4, 16: half way between two of them is the geometric mean.
        (0.3, Crossing(2.0, "equal")),
        (0.5, Crossing(8.0, "equal")),
        (0.4, Crossing(4.0, "equal")),
        (0.45, Crossing(4 * math.sqrt(2), "equal")),
        (0.6, Crossing(16.0, "equal")),
        (0.2, Crossing(1.0, "at most")),
        (0.1, Crossing(1.0, "at most")),
        (0.7, Crossing(16.0, "more than")),
    ],
)
def test_crossings_of_a_line_by_hand(zero_shot: float, expected: Crossing) -> None:
    found = crossing([1, 4, 16], [0.2, 0.4, 0.6], zero_shot)
    assert found.examples == pytest.approx(expected.examples)
    assert found.relation == expected.relation


def test_the_first_of_several_crossings_counts() -> None:
    found = crossing([1, 2, 4, 8], [0.1, 0.5, 0.3, 0.9], 0.5)
    assert found.examples == pytest.approx(2)
    assert found.relation == "equal"


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 30])
def test_the_interval_over_seeds_is_students(count: int) -> None:
    values = np.random.default_rng(count).normal(0.5, 0.01, count)
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert t_interval(values.tolist()) == pytest.approx(expected, abs=1e-12)


def test_an_interval_stays_within_the_shares() -> None:
    assert t_interval([0.02, 0.5]) == (0.0, 1.0)
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_one_shot_regularises_alike_whatever_the_scale_of_the_features() -> None:
    data = labelled_digits(slice(0, 500))
    shot = data.only(sample(data.target, 1, seed=0)).features
    small, large = one_shot_strength(shot), one_shot_strength(100 * shot)
    assert large == pytest.approx(small / 1e4)
    # By its definition.
    mean = shot.mean(axis=0)
    assert small * np.mean([np.sum((row - mean) ** 2) for row in shot]) == pytest.approx(10, rel=1e-5)


def test_metrics_are_means_over_seeds_of_probes_that_saw_only_their_draw() -> None:
    train, test = labelled_digits(slice(0, 400)), labelled_digits(slice(400, 700))
    done: list[int] = []
    report = evaluate_few_shot(
        train, test, model_name="pixels", shots=(1, 4), seeds=2, zero_shot=0.5, progress=done.append
    )
    assert sum(done) == 4
    assert list(report.scores.metrics) == ["top1_1_shot", "top1_4_shot"]
    for name, shots in (("top1_1_shot", 1), ("top1_4_shot", 4)):
        by_hand = []
        for seed, strength in enumerate(report.details["C"][name]):
            drawn = train.only(sample(train.target, shots, seed))
            predicted = test.logits(drawn.regression(torch.device("cpu")).fit(strength)).argmax(1).numpy()
            by_hand.append(np.mean(predicted == test.target))
        assert report.details["by_seed"][name] == pytest.approx(by_hand)
        of_seeds = report.details["by_seed"][name]
        assert report.scores.metrics[name] == pytest.approx(np.mean(of_seeds))
        assert report.scores.confidence[name] == pytest.approx(t_interval(of_seeds))
        assert report.outcomes is not None
        assert np.mean(report.outcomes.scores[name]) == pytest.approx(np.mean(of_seeds))
    assert report.details["headline"] == "top1_4_shot"
    assert report.details["crossing"]["relation"] == "at most"
    assert report.scores.chance["top1_1_shot"] == 0.1
    assert report.scores.metrics["top1_1_shot"] < report.scores.metrics["top1_4_shot"]
    json.dumps(report.to_json())


def test_the_test_images_have_no_part_in_the_choice_of_a_strength() -> None:
    train = labelled_digits(slice(0, 300))
    chosen = [
        evaluate_few_shot(
            train, labelled_digits(slice(start, start + 60)), model_name="", shots=(2,), seeds=1
        ).details["C"]
        for start in (300, 900)
    ]
    assert chosen[0] == chosen[1]


def test_one_seed_has_no_interval() -> None:
    train, test = labelled_digits(slice(0, 300)), labelled_digits(slice(300, 400))
    report = evaluate_few_shot(train, test, model_name="", shots=(1,), seeds=1)
    assert report.scores.confidence == {}
    assert "crossing" not in report.details


def test_too_few_images_of_a_class_are_an_error_before_anything_is_fitted() -> None:
    train = labelled_digits(slice(0, 100))
    with pytest.raises(DataError, match="the class '4' has 8 images; 16 shots need 16 of each class"):
        evaluate_few_shot(train, train, model_name="")
    with pytest.raises(SettingsError, match="expected whole numbers from 1"):
        evaluate_few_shot(train, train, model_name="", shots=(0, 1))
    with pytest.raises(SettingsError, match="expected a share"):
        evaluate_few_shot(train, train, model_name="", shots=(1,), zero_shot=42)
