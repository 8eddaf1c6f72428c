"""Several labels an image, against a loop over images and classes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images, embed_texts
from diptych.errors import DataError
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.multi_label import evaluate_multi_label
from diptych.models.image_model import ImageModel

NAMES = ("bird", "car", "dog", "person")
# The labels of each image, and those that count neither way.
SHOWN: list[tuple[list[str], list[str]]] = [
    (["dog"], []),
    (["dog", "person"], ["car"]),
    (["car"], []),
    ([], ["dog"]),
    (["bird", "car", "person"], []),
    (["person"], ["person"]),
    (["dog"], ["bird"]),
    (["car", "dog"], []),
    ([], []),
]


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (labels, difficult) in enumerate(SHOWN):
        draw(folder / f"{number}.png", number)
        record = {"labels": labels, **({"difficult": difficult} if difficult else {})}
        (folder / f"{number}.json").write_text(json.dumps(record))
    return folder


def slow_average_precision(score: list[float], state: list[int]) -> float:
    """state: 1 shown, 0 difficult, -1 not shown. The images one by one from the best; no two scores are equal."""
    ranked = [what for _, what in sorted(zip(score, state, strict=True), reverse=True) if what]
    right, points = 0, []
    for taken, what in enumerate(ranked, 1):
        right += what == 1
        points.append((right, right / taken))
    return sum(max(p for r, p in points if 10 * r >= tenth * right) for tenth in range(11)) / 11


def test_report_equals_a_slow_loop(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, pictures: Path
) -> None:
    report = evaluate_multi_label(
        tiny_clip, tiny_preprocess, open_source(pictures), model_name="tiny", templates=["a {}"]
    )
    images = embed_images(tiny_clip, tiny_preprocess, sorted(pictures.glob("*.png")))
    similarity = images @ embed_texts(tiny_clip, [f"a {name}" for name in NAMES]).T
    expected = {}
    for column, name in enumerate(NAMES):
        state = [1 if name in shown else 0 if name in unsure else -1 for shown, unsure in SHOWN]
        expected[name] = slow_average_precision(similarity[:, column].tolist(), state)
    assert {name: scores.metrics["map11"] for name, scores in report.groups.items()} == pytest.approx(
        expected
    )
    assert report.scores.metrics["map11"] == pytest.approx(np.mean(list(expected.values())))
    first = [NAMES[column] in shown for column, (shown, _) in zip(similarity.argmax(1), SHOWN, strict=True)]
    assert report.scores.metrics["top1"] == pytest.approx(np.mean(first))
    # Cars: 3 of the 8 images that are judged. Birds: 1 of 8. Dogs: 4 of 8. People: 3 of 9.
    assert report.scores.chance["map11"] == pytest.approx(np.mean([3 / 8, 1 / 8, 4 / 8, 3 / 9]))
    assert report.groups["person"].count == 3


def test_report_says_what_stands_first_and_what_became_of_each_image(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, pictures: Path
) -> None:
    (pictures / "2.png").write_bytes(b"no image")
    report = evaluate_multi_label(tiny_clip, tiny_preprocess, open_source(pictures), model_name="tiny")
    assert next(iter(report.scores.metrics)) == report.details["headline"] == "map11"
    assert report.skipped == {"not an image": 1}
    low, high = report.scores.confidence["map11"]
    assert low <= report.scores.metrics["map11"] <= high
    assert report.outcomes is not None
    assert report.outcomes.keys == tuple(f"{number}.png" for number in (0, 1, 3, 4, 5, 6, 7, 8))
    assert report.outcomes.scores["top1"].mean() == pytest.approx(report.scores.metrics["top1"])
    assert report.outcomes.positions == (0, 1, 3, 4, 5, 6, 7, 8)


def test_a_table_has_the_labels_in_one_column_with_commas(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, pictures: Path
) -> None:
    with open(pictures.parent / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "labels", "difficult"])
        for number, (labels, difficult) in enumerate(SHOWN):
            writer.writerow([f"pictures/{number}.png", ", ".join(labels), ",".join(difficult)])
    found = [
        evaluate_multi_label(tiny_clip, tiny_preprocess, open_source(place), model_name="tiny").scores
        for place in (pictures, pictures.parent / "table.csv")
    ]
    assert found[0] == found[1]


def test_classes_that_no_image_shows_change_nothing(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, pictures: Path
) -> None:
    source = open_source(pictures)
    labels = LabelSet.of([*NAMES, "sofa"])
    more = evaluate_multi_label(tiny_clip, tiny_preprocess, source, model_name="tiny", labels=labels)
    same = evaluate_multi_label(tiny_clip, tiny_preprocess, source, model_name="tiny")
    assert more.scores.metrics["map11"] == pytest.approx(same.scores.metrics["map11"])
    assert "sofa" not in more.groups


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "dog"}, "0.png: no 'labels' in its metadata"),
        ({"labels": 3}, "0.png: 'labels' is 3; expected a list of names"),
        ({"labels": ["dog", 3]}, "expected a list of names"),
        ({"labels": ["cat"]}, "0.png: the label 'cat' is not among the 4 given"),
    ],
)
def test_an_image_whose_labels_cannot_be_read_is_an_error_before_one_is_decoded(
    tiny_clip: ImageModel, pictures: Path, record: dict[str, object], message: str
) -> None:
    (pictures / "0.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=message):
        evaluate_multi_label(
            tiny_clip,
            lambda image: pytest.fail("an image was decoded"),
            open_source(pictures),
            model_name="tiny",
            labels=LabelSet.of(NAMES),
        )


def test_images_without_any_label_are_an_error(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, pictures: Path
) -> None:
    for record in pictures.glob("*.json"):
        record.write_text('{"labels": []}')
    with pytest.raises(DataError, match="no image has a label"):
        evaluate_multi_label(tiny_clip, tiny_preprocess, open_source(pictures), model_name="tiny")
