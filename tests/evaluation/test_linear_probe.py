"""The linear probe: its sweep against trying everything, its metrics against scikit-learn and slow loops."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression as ReferenceRegression
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.probes.linear_probe import MOST_FITS, evaluate_linear_probe, fit_probe
from diptych.evaluation.probes.multi_label_features import MultiLabelFeatures, multi_label_features
from diptych.evaluation.probes.probe_data import LabelledFeatures, held_out, labelled_features
from diptych.evaluation.probes.strength_sweep import (
    INVERSE_STRENGTHS,
    MOST_STRENGTHS,
    Score,
    Split,
    best_place,
    halving_search,
    sweep,
)
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.models.image_model import ImageModel
from tests.evaluation.probe_digits import labelled_digits

CPU = torch.device("cpu")


def one_peak(place: int) -> Callable[[int], Score]:
    """A score that falls on both sides of a place, in steps that are wider than the grid's: with many ties."""
    return lambda tried: Score(-(abs(tried - place) // 5), -abs(tried - place))


@pytest.mark.parametrize("peak", range(97))
def test_the_search_finds_any_single_peak_in_15_tries(peak: int) -> None:
    scores = halving_search(one_peak(peak))
    assert best_place(scores) == peak
    assert len(scores) <= MOST_STRENGTHS == 15


def test_the_grid_is_the_papers() -> None:
    # 96 steps from 1e-6 to 1e6: 8 a decade.
    np.testing.assert_allclose(INVERSE_STRENGTHS, np.logspace(-6, 6, 97), rtol=1e-12)


def test_ties_go_to_the_smaller_loss_and_then_to_the_stronger_regularisation() -> None:
    assert best_place({1: Score(0.5, -0.1), 2: Score(0.6, -0.9), 3: Score(0.6, -0.8)}) == 3
    assert best_place({7: Score(0.6, -0.8), 5: Score(0.6, -0.8)}) == 5


def brute_force(split: Split) -> tuple[float, Score]:
    """Every strength, each as exactly as any fit."""
    scores, fit = {}, None
    for place, strength in enumerate(INVERSE_STRENGTHS):
        fit = split.train.fit(strength, fit)
        scores[place] = split.validate(fit)
    best = best_place(scores)
    return INVERSE_STRENGTHS[best], scores[best]


def digits_split(data: LabelledFeatures) -> Split:
    train, validation = data.parts(seed=0)
    return Split(train.regression(CPU), lambda fit: validation.score(fit, "top1"))


def test_the_sweep_of_digits_finds_what_trying_everything_finds() -> None:
    split = digits_split(labelled_digits(slice(0, 200)))
    found = sweep([split])
    strength, score = brute_force(split)
    assert found.inverse_strength == strength
    assert found.scores[strength].metric == score.metric
    assert len(found.scores) <= 20
    assert not found.unconverged


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4))
def test_the_sweep_of_all_digits_finds_what_trying_everything_finds(seed: int) -> None:
    data = labelled_digits()
    split = digits_split(data.only(np.random.default_rng(seed).permutation(len(data))))
    found = sweep([split])
    strength, score = brute_force(split)
    assert found.inverse_strength == strength
    assert found.scores[strength].metric == score.metric


def test_the_score_of_several_splits_is_their_mean() -> None:
    first, second = (digits_split(labelled_digits(slice(start, start + 60))) for start in (0, 60))
    alone = [sweep([split]).scores for split in (first, second)]
    for strength, score in sweep([first, second]).scores.items():
        if all(strength in scores for scores in alone):
            metrics = [scores[strength].metric for scores in alone]
            assert score.metric == pytest.approx(np.mean(metrics))


def test_a_split_keeps_a_fifth_of_each_class_and_leaves_one() -> None:
    target = np.array([0] * 10 + [1] * 2 + [2] + [3] * 14)
    kept = held_out(target, 0.2, seed=3)
    assert np.bincount(target[kept], minlength=4).tolist() == [2, 1, 0, 3]
    assert (held_out(target, 0.2, seed=3) == kept).all()
    assert (held_out(target, 0.2, seed=4) != kept).any()


def test_metrics_of_the_final_fit_equal_scikit_learns() -> None:
    train, test = labelled_digits(slice(0, 300)), labelled_digits(slice(300, 700))
    done: list[int] = []
    report = evaluate_linear_probe(train, test, model_name="pixels", progress=done.append)
    assert sum(done) == report.details["fits"] <= MOST_FITS <= 20
    assert report.details["converged"] is True
    assert report.details["training_images"] == 300
    reference = ReferenceRegression(C=report.details["C"], solver="newton-cholesky", tol=1e-8)
    reference.fit(train.features.astype(np.float64), train.target)
    predicted = reference.predict(test.features)
    assert report.outcomes is not None
    assert report.outcomes.predicted is not None
    assert report.outcomes.predicted.tolist() == predicted.tolist()
    top1 = np.mean(predicted == test.target)
    assert report.scores.metrics["top1"] == pytest.approx(top1)
    assert report.scores.metrics["mean_per_class"] == pytest.approx(
        recall_score(test.target, predicted, average="macro")
    )
    low, high = report.scores.confidence["top1"]
    assert low < top1 < high
    assert report.scores.chance["top1"] == 0.1
    assert report.outcomes.keys == test.keys
    assert report.outcomes.probability is not None
    np.testing.assert_allclose(
        report.outcomes.probability, reference.predict_proba(test.features).max(axis=1), atol=1e-3
    )


def test_scores_for_choosing_equal_scikit_learns() -> None:
    train, test = labelled_digits(slice(0, 300), classes=2), labelled_digits(slice(300, 900), classes=2)
    # Little of the data and much regularisation, so that not everything is right.
    fit = train.only(np.arange(4)).regression(CPU).fit(1e-6)
    probability = test.logits(fit).softmax(1).numpy()
    predicted = probability.argmax(1)
    expected = {
        "top1": np.mean(predicted == test.target),
        "mean_per_class": recall_score(test.target, predicted, average="macro"),
        "mean_top1_top5": (np.mean(predicted == test.target) + 1) / 2,
        "roc_auc": roc_auc_score(test.target, probability[:, 1]),
    }
    for name, value in expected.items():
        score = test.score(fit, name)
        assert score.metric == pytest.approx(value)
        assert score.negative_loss == pytest.approx(-log_loss(test.target, probability))


def test_given_validation_images_choose_the_strength_and_are_learned_from() -> None:
    train, kept = labelled_digits(slice(0, 100)), labelled_digits(slice(100, 180))
    probe = fit_probe(train, kept, headline="top1", seed=0, device=CPU)
    split = Split(train.regression(CPU), lambda fit: kept.score(fit, "top1"))
    assert probe.chosen.inverse_strength == sweep([split]).inverse_strength
    both = labelled_digits(slice(0, 180)).regression(CPU).fit(probe.fit.inverse_strength)
    alone = split.train.fit(probe.fit.inverse_strength)
    largest = both.weights.abs().max()
    assert (probe.fit.weights - both.weights).abs().max() < 1e-3 * largest
    assert (alone.weights - both.weights).abs().max() > 0.1 * largest
    assert probe.fitted == 180
    assert probe.validated == "digits"


def test_the_test_images_have_no_part_in_the_choice() -> None:
    train = labelled_digits(slice(0, 100))
    chosen = {
        evaluate_linear_probe(train, labelled_digits(slice(start, start + 50)), model_name="").details["C"]
        for start in (100, 400, 800)
    }
    assert len(chosen) == 1


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Two classes of grey pictures, light and dark, ten of each, for training and for testing."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, mean in (("dark", 60), ("light", 190)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(10):
                shade = int(mean + random.integers(-40, 40))
                Image.new("RGB", (16, 16), (shade,) * 3).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_features_are_those_before_the_projection(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, shades: Path
) -> None:
    source = open_source(shades / "train")
    data = labelled_features(tiny_clip, tiny_preprocess, source, batch_size=3)
    assert data.classes == ("dark", "light")
    for row, position in enumerate(data.positions):
        example = source[position]
        with torch.inference_mode():
            expected = tiny_clip.image_features(tiny_preprocess(example.image)[None])[0]
        np.testing.assert_allclose(data.features[row], expected, atol=1e-5)
        assert data.classes[data.target[row]] == example.label
        assert data.keys[row] == example.key


def test_a_probe_of_pictures_tells_light_from_dark(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, shades: Path
) -> None:
    train = labelled_features(tiny_clip, tiny_preprocess, open_source(shades / "train"))
    test = labelled_features(
        tiny_clip, tiny_preprocess, open_source(shades / "test"), labels=LabelSet.of(train.classes)
    )
    report = evaluate_linear_probe(train, test, model_name="tiny", headline="roc_auc")
    assert next(iter(report.scores.metrics)) == "roc_auc"
    assert report.scores.metrics["roc_auc"] > 0.9
    shown = json.loads(json.dumps(report.to_json()))
    assert shown["task"] == "linear-probe"
    assert {"C", "fits", "converged", "tried", "unconverged", "validated_with"} <= shown["details"].keys()


def test_training_images_that_cannot_be_read_are_told() -> None:
    test = labelled_digits(slice(0, 20))
    train = replace(
        labelled_digits(slice(20, 60)), data="train", skipped={"truncated image": 3}, remarks=("a remark",)
    )
    assert test.remarks_beside(train) == ("train: a remark", "train: left out 3 (truncated image)")
    assert test.remarks_beside(replace(train, data=test.data, remarks=())) == ()


def test_test_images_that_were_trained_on_are_told() -> None:
    whole = labelled_digits(slice(0, 20))
    assert whole.remarks_beside(whole.only(np.arange(5))) == ("5 of 20 test images were trained on",)


def test_what_cannot_be_measured_is_an_error_that_says_so() -> None:
    data = labelled_digits(slice(0, 100))
    few = data.only(np.flatnonzero(data.target < 9))
    with pytest.raises(DataError, match="no image of the class '9' to learn from"):
        evaluate_linear_probe(few, data, model_name="")
    other = replace(data, classes=tuple("abcdefghij"))
    with pytest.raises(DataError, match="its 10 classes are not those of digits"):
        evaluate_linear_probe(data, other, model_name="")
    first = data.only(np.array([int(np.flatnonzero(data.target == digit)[0]) for digit in range(10)]))
    with pytest.raises(DataError, match="one image a class leaves none"):
        evaluate_linear_probe(first, data, model_name="")
    alone = labelled_digits(slice(0, 100), classes=1)
    with pytest.raises(DataError, match="every image is of the class '0'"):
        evaluate_linear_probe(alone, alone, model_name="")
    with pytest.raises(SettingsError, match="'roc_auc': needs two classes"):
        evaluate_linear_probe(data, data, model_name="", headline="roc_auc")


def several_labels(rows: slice) -> MultiLabelFeatures:
    """Digits that are even, above six, or three."""
    data = labelled_digits(rows)
    relevant = np.stack([data.target % 2 == 0, data.target > 6, data.target == 3], axis=1)
    return MultiLabelFeatures(
        data="digits",
        classes=("even", "large", "three"),
        features=data.features,
        relevant=relevant,
        judged=np.ones_like(relevant),
        keys=data.keys,
        positions=data.positions,
        skipped={},
    )


def test_several_classes_an_image_are_measured_by_the_11_point_map() -> None:
    train, test = several_labels(slice(0, 300)), several_labels(slice(300, 600))
    report = evaluate_linear_probe(train, test, model_name="pixels", headline="map11")
    scores = []
    for column in range(3):
        reference = ReferenceRegression(C=report.details["C"], solver="newton-cholesky", tol=1e-8)
        reference.fit(train.features.astype(np.float64), train.relevant[:, column])
        scores.append(reference.decision_function(test.features))
    # The definition: precision at each rank; at each of eleven recalls the best at that recall or a higher one.
    expected = []
    for column, score in enumerate(scores):
        right = test.relevant[np.argsort(-score), column]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        recall = np.cumsum(right) / right.sum()
        expected.append(np.mean([precision[recall >= tenth / 10 - 1e-12].max() for tenth in range(11)]))
    assert report.scores.metrics["map11"] == pytest.approx(np.mean(expected), abs=1e-6)
    found = [report.groups[name].metrics["map11"] for name in test.classes]
    assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(SettingsError, match="several classes are measured by map11"):
        evaluate_linear_probe(train, test, model_name="", headline="top1")


def test_several_classes_an_image_are_read_from_metadata(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    records: list[dict[str, object]] = [
        {"labels": ["cat", "dog"]},
        {"labels": "dog", "difficult": ["cat"]},
        {"labels": []},
    ]
    for number, record in enumerate(records):
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.json").write_text(json.dumps({"caption": "x", **record}))
    data = multi_label_features(tiny_clip, tiny_preprocess, open_source(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.relevant.tolist() == [[True, True], [False, True], [False, False]]
    assert data.judged.tolist() == [[True, True], [False, True], [True, True]]
    with pytest.raises(DataError, match=r"no image to learn from shows the class 'cat'|every image"):
        data.only(np.array([1, 2])).regression(CPU)


def test_the_part_that_chooses_the_strength_is_cut_by_whole_groups() -> None:
    target = np.repeat([0, 1, 2], [40, 12, 3])
    groups = [*np.repeat(np.arange(10), 4), *np.repeat([20, 21, 22], 4), 30, 30, 30]
    kept = held_out(target, 0.2, 3, groups)
    for group in set(groups):
        assert len({bool(kept[row]) for row in range(len(groups)) if groups[row] == group}) == 1
    assert [int(kept[target == label].sum()) for label in range(3)] == [8, 4, 0]
    alone = held_out(target, 0.2, 3, list(range(len(target))))
    assert (alone == held_out(target, 0.2, 3)).all()
