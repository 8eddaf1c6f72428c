"""Temperature and threshold against scipy, a search over every threshold, and data with known answers."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics as sklearn

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.calibration import (
    TEMPERATURES,
    calibrate,
    fit_temperature,
    log_loss,
    read_calibration,
    threshold_between,
    threshold_keeping,
    write_calibration,
)
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.own_labels import classify
from diptych.evaluation.zero_shot.reliability import bins_of_equal_width, expected_calibration_error
from diptych.models.image_model import ImageModel
from tests.tiny_model import random_clip


def drawn(count: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sharpness` times those by whose softmax the right class was drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(count, 6))
    target = np.array([generator.choice(6, p=p) for p in softmax(logits, axis=1)])
    return (sharpness * logits).astype(np.float32), target


@pytest.mark.parametrize("sharpness", [0.3, 1, 4])
def test_temperature_is_scipys_minimum_of_the_log_loss(sharpness: float) -> None:
    logits, target = drawn(400, sharpness)
    best = minimize_scalar(
        lambda log: -log_softmax(logits / np.exp(log), axis=1)[np.arange(400), target].mean(),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-9},
    )
    # scipy stops where the loss no longer changes in float64, the square root of which is the temperature's error.
    assert fit_temperature(logits, target) == pytest.approx(np.exp(best.x), rel=1e-5)


def test_temperature_undoes_what_was_multiplied_and_makes_probabilities_hold() -> None:
    logits, target = drawn(20_000, sharpness=3)
    temperature = fit_temperature(logits, target)
    assert temperature == pytest.approx(3, rel=0.03)

    def error(probabilities: np.ndarray) -> float:
        right = probabilities.argmax(axis=1) == target
        return expected_calibration_error(bins_of_equal_width(probabilities.max(axis=1), right))

    assert error(softmax(logits, axis=1)) > 0.1
    assert error(softmax(logits / temperature, axis=1)) < 0.02


def test_log_loss_equals_scikit_learn() -> None:
    logits, target = drawn(300, sharpness=1)
    expected = sklearn.log_loss(target, softmax(logits.astype(np.float64), axis=1), labels=range(6))
    assert log_loss(logits, target) == pytest.approx(expected, rel=1e-6)


def test_where_every_answer_is_right_or_chance_the_temperature_is_at_a_limit() -> None:
    logits = np.eye(4, dtype=np.float32)
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(TEMPERATURES[0])
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(TEMPERATURES[1])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_threshold_keeps_at_least_its_share_and_no_higher_one_does(share: float, count: int) -> None:
    scores = np.random.default_rng(count).normal(size=count).astype(np.float32)
    threshold = threshold_keeping(scores, share)
    assert np.mean(scores >= threshold) >= share
    higher = np.append(np.sort(scores)[np.sort(scores) > threshold], np.inf)[0]
    assert np.mean(scores > higher) < share
    # Halfway between two scores, so that a last bit does not matter.
    assert threshold not in scores or threshold == scores.min()


@pytest.mark.parametrize("seed", range(6))
def test_threshold_between_two_kinds_is_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Tenths tie often.
    known = np.round(generator.normal(1, 1, 60), 1).astype(np.float32)
    others = np.round(generator.normal(0, 1, 35), 1).astype(np.float32)

    def gain(threshold: float) -> float:
        return float(np.mean(known >= threshold) - np.mean(others >= threshold))

    threshold = threshold_between(known, others)
    every = np.concatenate([known, others])
    assert gain(threshold) == pytest.approx(max(gain(value) for value in every))
    false, true, _ = sklearn.roc_curve([1] * 60 + [0] * 35, every, drop_intermediate=False)
    assert gain(threshold) == pytest.approx((true - false).max())


def test_threshold_between_kinds_that_do_not_overlap_is_in_the_middle() -> None:
    known, others = np.array([0.5, 0.75], np.float32), np.array([0.0, 0.25], np.float32)
    assert threshold_between(known, others) == 0.375


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for number in range(24):
        picture(tmp_path / "animals" / ("cat", "dog", "elk")[number % 3] / f"{number}.png", number)
    return tmp_path / "animals"


@pytest.fixture
def others(tmp_path: Path) -> Path:
    for number in range(10):
        picture(tmp_path / "others" / f"{number}.png", 100 + number)
    return tmp_path / "others"


@pytest.fixture
def written(tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path, tmp_path: Path) -> Path:
    found = calibrate(tiny_clip, tiny_preprocess, open_source(animals), model_name="tiny")
    write_calibration(tmp_path / "animals.json", found)
    return tmp_path / "animals.json"


def test_calibration_agrees_with_classify_and_with_evaluation(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path, others: Path
) -> None:
    source = open_source(animals)
    found = calibrate(
        tiny_clip, tiny_preprocess, source, model_name="tiny", none_of_these=open_source(others)
    )
    classify_cooled = functools.partial(
        classify,
        tiny_clip,
        tiny_preprocess,
        labels=found.label_set,
        temperature=found.temperature,
        threshold=found.threshold,
    )
    files = [source[position].image for position in range(len(source))]
    labels = [source[position].label or "" for position in range(len(source))]
    plain = classify(tiny_clip, tiny_preprocess, files, found.label_set)
    cooled = classify_cooled(files)
    for before, after in zip(plain, cooled, strict=True):
        assert [guess["label"] for guess in before["predictions"]] == [
            guess["label"] for guess in after["predictions"]
        ]
        odds = [guess["probability"] ** (1 / found.temperature) for guess in before["predictions"]]
        probabilities = [guess["probability"] for guess in after["predictions"]]
        assert probabilities == pytest.approx([value / sum(odds) for value in odds], abs=1e-5)
        assert "none_of_these" not in before
        assert after["none_of_these"] == (after["predictions"][0]["similarity"] < found.threshold)
    assert np.mean([not answer["none_of_these"] for answer in cooled]) == found.measured["kept"]
    elsewhere = classify_cooled(sorted(others.glob("*.png")))
    assert np.mean([answer["none_of_these"] for answer in elsewhere]) == found.measured["turned_away"]
    assert (found.measured["count"], found.measured["none_count"]) == (24, 10)
    right = [answer["predictions"][0]["label"] == label for answer, label in zip(cooled, labels, strict=True)]
    kept = [hit for hit, answer in zip(right, cooled, strict=True) if not answer["none_of_these"]]
    assert found.measured["top1"] == np.mean(right)
    assert found.measured["top1_kept"] == np.mean(kept)
    by_label = [{guess["label"]: guess["probability"] for guess in answer["predictions"]} for answer in plain]
    expected = -np.mean([np.log(row[label]) for row, label in zip(by_label, labels, strict=True)])
    assert found.measured["log_loss_before"] == pytest.approx(expected, abs=1e-5)
    outcomes = evaluate_zero_shot(tiny_clip, tiny_preprocess, source, model_name="tiny").outcomes
    assert outcomes is not None
    assert outcomes.probability == pytest.approx([max(row.values()) for row in by_label], abs=1e-5)
    assert found.measured["calibration_error_before"] == pytest.approx(
        expected_calibration_error(bins_of_equal_width(outcomes.probability, outcomes.scores["top1"] > 0)),
        abs=1e-5,
    )


def test_without_other_pictures_the_threshold_keeps_the_share_that_was_asked_for(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path, others: Path
) -> None:
    calibrate_animals = functools.partial(
        calibrate, tiny_clip, tiny_preprocess, open_source(animals), model_name="tiny", keep=0.75
    )
    alone = calibrate_animals()
    assert alone.measured["kept"] == 0.75
    assert "turned_away" not in alone.measured
    beside = calibrate_animals(none_of_these=open_source(others))
    assert beside.threshold == alone.threshold
    assert {"turned_away", "none_roc_auc", "none_count"} <= beside.measured.keys()


def test_a_file_holds_the_whole_calibration_in_the_order_of_the_classes(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path, tmp_path: Path
) -> None:
    labels = LabelSet(("elk", "dog", "cat"), (("elk", "moose"), ("dog",), ("cat",)), ("a {}", "the {}"))
    found = calibrate(tiny_clip, tiny_preprocess, open_source(animals), model_name="tiny", labels=labels)
    write_calibration(tmp_path / "animals.json", found)
    again = read_calibration(tmp_path / "animals.json")
    assert again == found
    assert again.label_set == labels


def test_a_calibration_of_another_model_is_refused(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path
) -> None:
    found = calibrate(tiny_clip, tiny_preprocess, open_source(animals), model_name="tiny")
    found.require(tiny_clip, tiny_preprocess)
    other = random_clip()
    other.logit_scale.data += 1
    with pytest.raises(SettingsError, match="belongs to another model, tiny"):
        found.require(other, tiny_preprocess)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "not a calibration"),
        ({"temperature": 0}, "temperature 0.0: expected a number above 0"),
        ({"threshold": 3}, "threshold 3.0: expected a cosine"),
        ({"format_version": 2}, "format_version 2"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"labels": 3}, "expected a table"),
    ],
)
def test_a_file_that_is_no_calibration_is_an_error_with_its_name(
    written: Path, change: dict[str, object], message: str
) -> None:
    written.write_text(json.dumps(json.loads(written.read_text()) | change))
    with pytest.raises(SettingsError, match=message) as caught:
        read_calibration(written)
    assert written.name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "No such file"), ("{", "not JSON"), ("[]", "not a cal")]
)
def test_a_missing_or_broken_file_is_an_error_with_its_name(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_calibration(tmp_path / "x.json")
    assert "x.json" in str(caught.value)


def test_what_cannot_be_calibrated_is_an_error(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, animals: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"keep 1\.5: expected a share"):
        calibrate(tiny_clip, tiny_preprocess, open_source(animals), model_name="tiny", keep=1.5)
    picture(tmp_path / "one" / "cat" / "1.png", 1)
    with pytest.raises(SettingsError, match="one class \\('cat'\\)"):
        calibrate(tiny_clip, tiny_preprocess, open_source(tmp_path / "one"), model_name="tiny")
    labels = LabelSet.of(["cat", "dog"])
    with pytest.raises(DataError, match="one image that can be read"):
        calibrate(tiny_clip, tiny_preprocess, open_source(tmp_path / "one"), model_name="tiny", labels=labels)
