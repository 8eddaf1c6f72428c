"""Zero-shot classification against a loop that does one image and one prompt at a time."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images, embed_texts
from diptych.errors import DataError, SettingsError
from diptych.evaluation.tasks import Headline
from diptych.evaluation.zero_shot import classification
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import classifier, evaluate_zero_shot
from diptych.evaluation.zero_shot.own_labels import classify
from diptych.evaluation.zero_shot.prompts import TEMPLATES, fill
from diptych.models.image_model import ImageModel
from diptych.tokenizer import tokenize

CLASSES = ("apple", "polar_bear", "car", "dog", "elk", "fox", "goat")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(colour).resize((24, 24), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for number in range(28):
        name = CLASSES[number % 7 if number < 21 else 0]
        draw(tmp_path / "classes" / name / f"{number}.png", number)
    return tmp_path / "classes"


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Four classes by two designers; the class is the caption."""
    for number in range(8):
        path = tmp_path / "captioned" / f"{number}.png"
        draw(path, number)
        record = {"captions": [f"class {number % 4}", "a drawing"], "vendor": "ab"[number // 4]}
        path.with_suffix(".json").write_text(json.dumps(record))
    return tmp_path / "captioned"


def encode_one(model: ImageModel, text: str) -> torch.Tensor:
    with torch.inference_mode():
        row = model.encode_text(tokenize(text))[0]
    unit: torch.Tensor = row / row.norm()
    return unit


def test_classifier_is_the_mean_of_unit_vectors_at_unit_length(tiny_clip: ImageModel) -> None:
    labels = ["cat", ["kit fox", "swift fox"], "dog"]
    templates = TEMPLATES["imagenet-7"]
    weights = classifier(tiny_clip, labels, templates)
    for column, label in enumerate(labels):
        phrases = [label] if isinstance(label, str) else label
        mean = torch.stack([encode_one(tiny_clip, fill(t, p)) for p in phrases for t in templates]).mean(0)
        torch.testing.assert_close(weights[:, column], mean / mean.norm(), atol=1e-6, rtol=0)


def test_averaging_before_normalising_would_give_another_classifier(tiny_clip: ImageModel) -> None:
    texts = ["cat", "a bad photo of the cat " * 5]
    with torch.inference_mode():
        raw = torch.cat([tiny_clip.encode_text(tokenize(text)) for text in texts]) * torch.tensor(
            [[1.0], [9]]
        )
    units = raw / raw.norm(dim=1, keepdim=True)
    wrong, right = raw.mean(0), units.mean(0)
    assert (wrong / wrong.norm() - right / right.norm()).abs().max() > 1e-3


def test_classifier_built_in_parts_equals_the_whole(
    tiny_clip: ImageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = classifier(tiny_clip, CLASSES, TEMPLATES["drawings"])
    monkeypatch.setattr(classification, "_PROMPTS_AT_ONCE", 11)
    torch.testing.assert_close(
        classifier(tiny_clip, CLASSES, TEMPLATES["drawings"]), whole, atol=1e-6, rtol=0
    )


def test_metrics_equal_a_slow_loop(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    source = open_source(class_folders)
    done: list[int] = []
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, source, model_name="tiny", templates=["a {}"], progress=done.append
    )
    names = sorted(CLASSES)
    texts = torch.stack([encode_one(tiny_clip, f"a {name.replace('_', ' ')}") for name in names])
    hits1, hits5 = [], []
    per_class: dict[str, list[bool]] = {name: [] for name in names}
    for position in range(len(source)):
        example = source[position]
        assert example.label is not None
        with torch.inference_mode():
            image = tiny_clip.encode_image(tiny_preprocess(example.image)[None])[0]
        order = (texts @ (image / image.norm())).argsort(descending=True).tolist()
        ranked = [names[column] for column in order]
        hits1.append(ranked[0] == example.label)
        hits5.append(example.label in ranked[:5])
        per_class[example.label].append(hits1[-1])
    metrics = report.scores.metrics
    assert metrics["top1"] == pytest.approx(np.mean(hits1))
    assert metrics["top5"] == pytest.approx(np.mean(hits5))
    assert metrics["mean_per_class"] == pytest.approx(np.mean([np.mean(hit) for hit in per_class.values()]))
    assert report.scores.chance == pytest.approx(
        {"top1": 1 / 7, "top5": 5 / 7, "mean_per_class": 1 / 7, "majority": 10 / 28}
    )
    assert sum(done) == 28


def test_report_has_the_shape_that_programs_rely_on(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    report = evaluate_zero_shot(tiny_clip, tiny_preprocess, open_source(class_folders), model_name="tiny")
    shown = json.loads(json.dumps(report.to_json()))
    assert {"task", "model", "count", "metrics", "confidence"} <= shown.keys()
    assert (shown["task"], shown["model"], shown["count"]) == ("zero-shot", "tiny", 28)
    for name in ("top1", "top5", "mean_per_class"):
        low, high = shown["confidence"][name]
        assert 0 <= low <= shown["metrics"][name] <= high <= 1
    assert report.table().row_count >= 4


def test_groups_are_measured_on_their_own(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, captioned: Path
) -> None:
    source = open_source(captioned)
    labels = LabelSet.of([f"class {number}" for number in range(4)])
    report = evaluate_zero_shot(
        tiny_clip,
        tiny_preprocess,
        source,
        model_name="tiny",
        label_from="caption",
        labels=labels,
        group_by="vendor",
    )
    assert {name: scores.count for name, scores in report.groups.items()} == {"a": 4, "b": 4}
    top1 = [scores.metrics["top1"] for scores in report.groups.values()]
    assert report.scores.metrics["top1"] == pytest.approx(np.mean(top1))
    assert report.to_json()["groups"]["b"]["count"] == 4


def test_unreadable_images_are_counted_and_not_measured(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    next((class_folders / "elk").iterdir()).write_bytes(b"no image")
    report = evaluate_zero_shot(tiny_clip, tiny_preprocess, open_source(class_folders), model_name="tiny")
    assert report.scores.count == 27
    assert report.skipped == {"not an image": 1}


def test_a_label_outside_the_list_is_an_error_before_an_image_is_embedded(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    with pytest.raises(DataError, match="'elk' is not among the 6 given"):
        evaluate_zero_shot(
            tiny_clip,
            lambda image: pytest.fail("an image was decoded"),
            open_source(class_folders),
            model_name="tiny",
            labels=LabelSet.of(name for name in CLASSES if name != "elk"),
        )


def test_data_without_labels_or_groups_is_an_error_that_says_so(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, captioned: Path
) -> None:
    source = open_source(captioned)
    with pytest.raises(DataError, match="has no label"):
        evaluate_zero_shot(tiny_clip, tiny_preprocess, source, model_name="tiny")
    with pytest.raises(DataError, match="no 'designer' to group by; its metadata: vendor"):
        evaluate_zero_shot(
            tiny_clip,
            tiny_preprocess,
            source,
            model_name="tiny",
            label_from="caption",
            group_by="designer",
        )


def test_outcomes_are_what_the_metrics_are_the_mean_of(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    source = open_source(class_folders)
    (class_folders / "dog" / "10.png").write_bytes(b"no image")
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, source, model_name="tiny", headline="mean_top1_top5"
    )
    outcomes, metrics = report.outcomes, report.scores.metrics
    assert outcomes is not None
    assert outcomes.predicted is not None
    assert outcomes.probability is not None
    assert outcomes.target is not None
    assert outcomes.scores.keys() == {"top1", "top5", "mean_top1_top5"}
    for name, values in outcomes.scores.items():
        assert values.shape == (27,)
        assert metrics[name] == pytest.approx(values.mean())
    assert metrics["mean_top1_top5"] == pytest.approx((metrics["top1"] + metrics["top5"]) / 2)
    low, high = report.scores.confidence["mean_top1_top5"]
    assert low <= metrics["mean_top1_top5"] <= high
    names = np.array(outcomes.labels)
    assert names.tolist() == sorted(CLASSES)
    assert [source[position].key for position in outcomes.positions] == list(outcomes.keys)
    assert names[outcomes.target].tolist() == [source[position].label for position in outcomes.positions]
    files = [source[position].image for position in outcomes.positions]
    found = classify(tiny_clip, tiny_preprocess, files, LabelSet.of(names.tolist()))
    for column, probability, answer in zip(outcomes.predicted, outcomes.probability, found, strict=True):
        best = answer["predictions"][0]
        assert names[column] == best["label"]
        assert probability == pytest.approx(best["probability"], abs=1e-5)
    assert ((outcomes.predicted == outcomes.target) == outcomes.scores["top1"]).all()
    assert (outcomes.scores["top1"] <= outcomes.scores["top5"]).all()


@pytest.mark.parametrize("headline", ["top1", "mean_per_class", "mean_top1_top5"])
def test_the_headline_metric_stands_first(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path, headline: Headline
) -> None:
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, open_source(class_folders), model_name="tiny", headline=headline
    )
    assert next(iter(report.scores.metrics)) == report.details["headline"] == headline


@pytest.mark.parametrize("headline", ["top1", "roc_auc"])
def test_roc_auc_of_two_classes_equals_scikit_learn_on_the_difference_of_the_logits(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path, headline: Headline
) -> None:
    for number in range(24):
        draw(tmp_path / "memes" / ("fine" if number % 3 else "hateful") / f"{number}.png", number)
    source = open_source(tmp_path / "memes")
    labels = LabelSet(("fine", "hateful"), (("a meme",), ("a hatespeech meme",)))
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, source, model_name="tiny", labels=labels, headline=headline
    )
    pixels = torch.stack([tiny_preprocess(source[position].image) for position in range(24)])
    with torch.inference_mode():
        logits, _ = tiny_clip(pixels, tokenize(["a meme", "a hatespeech meme"]))
    positive = [source[position].label == "hateful" for position in range(24)]
    expected = roc_auc_score(positive, (logits[:, 1] - logits[:, 0]).numpy())
    assert report.scores.metrics["roc_auc"] == pytest.approx(expected, abs=1e-9)
    assert next(iter(report.scores.metrics)) == headline
    low, high = report.scores.confidence["roc_auc"]
    assert low <= expected <= high


def test_roc_auc_needs_two_classes_that_both_occur(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path, tmp_path: Path
) -> None:
    evaluate = functools.partial(
        evaluate_zero_shot, tiny_clip, tiny_preprocess, model_name="tiny", headline="roc_auc"
    )
    with pytest.raises(SettingsError, match="two classes, and there are 7"):
        evaluate(open_source(class_folders))
    draw(tmp_path / "one" / "fine" / "1.png", 1)
    source = open_source(tmp_path / "one")
    with pytest.raises(DataError, match="every image has the label 'fine'"):
        evaluate(source, labels=LabelSet.of(["fine", "hateful"]))
    with pytest.raises(SettingsError, match="did you mean 'top1'"):
        evaluate(source, headline="topl")  # type: ignore[arg-type]


def test_classes_of_one_name_are_tied_and_the_first_one_wins(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    # As the published names of ImageNet have "missile" and "sunglasses" twice.
    for number in range(8):
        draw(tmp_path / "arms" / ("n04008634" if number % 2 else "n03773504") / f"{number}.png", number)
    labels = LabelSet(("n03773504", "n04008634"), (("missile",), ("missile",)))
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, open_source(tmp_path / "arms"), model_name="tiny", labels=labels
    )
    assert report.scores.metrics["tied"] == 1
    assert report.scores.metrics["top1"] == report.scores.metrics["roc_auc"] == 0.5
    assert report.outcomes is not None
    assert report.outcomes.predicted is not None
    assert set(report.outcomes.predicted.tolist()) == {0}


def test_a_built_classifier_takes_the_place_of_the_usual_one(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    asked = []

    def build(model: ImageModel, labels: object, templates: object) -> torch.Tensor:
        asked.append((labels, templates))
        return torch.eye(24)[:, :2]

    labels = LabelSet(("apple", "elk"), (("an apple",), ("an elk",)))
    images = [next(class_folders.rglob("*.png"))]
    (found,) = classify(tiny_clip, tiny_preprocess, images, labels, templates=["a {}"], build=build)
    assert asked == [((("an apple",), ("an elk",)), ("a {}",))]
    vector = embed_images(tiny_clip, tiny_preprocess, images)[0]
    by_label = {guess["label"]: guess["similarity"] for guess in found["predictions"]}
    assert by_label == pytest.approx({"apple": vector[0], "elk": vector[1]})


@pytest.mark.parametrize(
    ("temperature", "threshold", "message"),
    [(0.0, None, "temperature 0.0"), (1.0, 2.0, "threshold 2.0: expected a cosine")],
)
def test_a_temperature_or_threshold_that_is_none_is_an_error(
    tiny_clip: ImageModel,
    tiny_preprocess: Preprocess,
    temperature: float,
    threshold: float | None,
    message: str,
) -> None:
    labels = LabelSet.of(["cat", "dog"])
    with pytest.raises(SettingsError, match=message):
        classify(tiny_clip, tiny_preprocess, [], labels, temperature=temperature, threshold=threshold)


def test_probabilities_are_the_models_own_softmax(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    images = sorted(class_folders.rglob("*.png"))[:3]
    found = classify(tiny_clip, tiny_preprocess, images, LabelSet.of(["cat", "dog", "a tree"]))
    with torch.inference_mode():
        pixels = torch.stack([tiny_preprocess(image) for image in images])
        logits, _ = tiny_clip(pixels, tokenize(["cat", "dog", "a tree"]))
        scale = float(tiny_clip.logit_scale.exp())
    expected = logits.softmax(dim=1)
    for row, (image, answer) in enumerate(zip(images, found, strict=True)):
        assert answer["image"] == str(image)
        probabilities = [prediction["probability"] for prediction in answer["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)
        for prediction in answer["predictions"]:
            column = ["cat", "dog", "a tree"].index(prediction["label"])
            assert prediction["probability"] == pytest.approx(float(expected[row, column]), abs=1e-5)
            assert prediction["similarity"] == pytest.approx(float(logits[row, column]) / scale, abs=1e-5)
    json.dumps(found)


def test_fewer_answers_keep_the_probabilities_among_all_labels(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    images = [next(class_folders.rglob("*.png"))]
    labels = LabelSet.of(CLASSES)
    (every,) = classify(tiny_clip, tiny_preprocess, images, labels)
    (some,) = classify(tiny_clip, tiny_preprocess, images, labels, top=2)
    assert some["predictions"] == every["predictions"][:2]


def test_one_label_leaves_nothing_to_choose(tiny_clip: ImageModel, tiny_preprocess: Preprocess) -> None:
    with pytest.raises(SettingsError, match="at least two"):
        classify(tiny_clip, tiny_preprocess, [], LabelSet.of(["cat"]))


def test_templates_of_a_label_file_are_used_unless_others_are_asked_for(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, class_folders: Path
) -> None:
    images = [next(class_folders.rglob("*.png"))]
    labels = LabelSet(("x", "y"), (("cat",), ("dog",)), ("a drawing of {}",))

    def similarity(templates: list[str] | None) -> list[float]:
        (answer,) = classify(tiny_clip, tiny_preprocess, images, labels, templates=templates)
        by_label = {prediction["label"]: prediction["similarity"] for prediction in answer["predictions"]}
        return [by_label["x"], by_label["y"]]

    with torch.inference_mode():
        image = tiny_clip.encode_image(tiny_preprocess(images[0])[None])[0]
    image = (image / image.norm()).numpy()
    for template, asked in (("a drawing of {}", None), ("my {}", ["my {}"])):
        texts = embed_texts(tiny_clip, [fill(template, name) for name in ("cat", "dog")])
        assert similarity(asked) == pytest.approx((texts @ image).tolist(), abs=1e-5)
