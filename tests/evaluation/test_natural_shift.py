"""Rules of the natural-shift sets against slow loops and hand-worked cases, their tables against published sizes."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import DataError
from diptych.evaluation.robustness.natural_shift import (
    SHIFTS,
    Anchor,
    ClassMap,
    class_map,
    crop_objectnet,
    frame_accuracy,
    imagenet_classes,
    in_distribution_accuracy,
    shift_accuracy,
)

# Classes, ImageNet classes among them, and validation images of those: the sizes that the testbed of Taori et al. has
# for each set (github.com/modestyachts/imagenet-testbed, src/eval_settings).
PUBLISHED_SIZES = {
    "imagenetv2": (1000, 1000, 50_000),
    "imagenet-sketch": (1000, 1000, 50_000),
    "imagenet-r": (200, 200, 10_000),
    "imagenet-a": (200, 200, 10_000),
    "objectnet": (113, 125, 6_250),
    "imagenet-vid-robust": (30, 288, 14_400),
    "ytbb-robust": (24, 231, 11_550),
}
# Some of them by their WordNet ids and what those are called (ImageNet's own names).
ZEBRA, SORREL, OX, TV, JERSEY = "n02391049", "n02389026", "n02403003", "n04404412", "n03595614"

FRAMES = (("vid", "imagenet-vid"), ("ytbb", "ytbb"))
VALIDATION = {
    "imagenet": "imagenetv2",
    "imagenet_on_a": "imagenet-a",
    "imagenet_on_r": "imagenet-r",
    "imagenet_on_objectnet": "objectnet",
    "imagenet_on_vid": "imagenet-vid-robust",
    "imagenet_on_ytbb": "ytbb-robust",
}


def scores(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-5, 1, (rows, 1000)).astype(np.float32)


@pytest.mark.parametrize("name", SHIFTS)
def test_tables_have_the_published_numbers_of_classes(name: str) -> None:
    table = class_map(name)
    assert (len(table.names), len(table.columns), table.validation_images) == PUBLISHED_SIZES[name]


def test_imagenets_classes_stand_in_the_order_of_their_wordnet_ids() -> None:
    classes = imagenet_classes()
    assert list(classes) == sorted(set(classes))
    assert (classes[0], classes[340], classes[999]) == ("n01440764", ZEBRA, "n15075141")


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_lists_of_a_and_r_equal_those_that_timm_ships(name: str) -> None:
    package = importlib.util.find_spec(
        "timm"
    )  # which open_clip brings; importing it would import torchvision
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "data" / "_info"
    published = (folder / f"{name.replace('-', '_')}_synsets.txt").read_text().split()
    assert sorted(class_map(name).names) == sorted(published)


@pytest.mark.parametrize(
    ("name", "label", "wnids"),
    [
        ("imagenet-vid-robust", "zebra", {ZEBRA}),
        ("imagenet-vid-robust", "cattle", {OX}),
        ("imagenet-vid-robust", "horse", {SORREL}),
        ("ytbb-robust", "cow", set()),
        ("ytbb-robust", "horse", {SORREL}),
        ("objectnet", "tv", {TV}),
        ("objectnet", "t-shirt", {JERSEY}),
    ],
)
def test_super_classes_have_the_members_of_their_name(name: str, label: str, wnids: set[str]) -> None:
    table = class_map(name)
    member = table.members[table.names.index(label)]
    assert {imagenet_classes()[column] for column in member} == wnids


@pytest.mark.parametrize("name", ["imagenet-r", "objectnet", "imagenet-vid-robust", "ytbb-robust"])
def test_projected_scores_equal_a_loop_over_members(name: str) -> None:
    table, logits = class_map(name), scores(7)
    expected = [
        [max((row[column] for column in member), default=-np.inf) for member in table.members]
        for row in logits
    ]
    np.testing.assert_array_equal(table.project(logits), np.array(expected, np.float32))


def test_scores_are_restricted_before_the_largest_is_taken() -> None:
    table = class_map("imagenet-r")
    logits = scores(200, seed=1)
    outside = next(column for column in range(1000) if column not in table.columns)
    logits[:, outside] = 10
    # Each class has one member, so the best class is the best of the 200 columns.
    member = np.array([columns[0] for columns in table.members])
    target = logits[:, member].argmax(axis=1)
    assert shift_accuracy(table, logits, target) == 1
    # The arg-max over all classes says `outside` of every picture.
    assert np.mean(logits.argmax(axis=1) == member[target]) == 0


def test_objectnet_by_the_largest_member_equals_asking_whether_the_best_class_is_a_member() -> None:
    # The testbed's rule: arg-max over the 125 classes, right where it is one of the folder's.
    table, logits = class_map("objectnet"), scores(300, seed=2)
    target = np.random.default_rng(3).integers(0, 113, 300)
    columns = np.array(table.columns)
    best = columns[logits[:, columns].argmax(axis=1)]
    right = [best[row] in table.members[place] for row, place in enumerate(target)]
    assert shift_accuracy(table, logits, target) == np.mean(right)
    assert np.mean(right) > 0


def test_a_class_that_imagenet_lacks_is_never_predicted() -> None:
    table = class_map("ytbb-robust")
    lacking = {place for place, member in enumerate(table.members) if not member}
    assert [table.names[place] for place in sorted(lacking)] == [
        "cow",
        "giraffe",
        "skateboard",
        "toilet",
        "none",
    ]
    logits = scores(100)
    assert (logits.max(axis=1) < 0).all()  # where a column of zeros would win
    assert not lacking & set(table.predict(logits).tolist())


def test_accuracy_without_the_shift_is_measured_on_the_same_sub_list() -> None:
    table = ClassMap(("cat", "dog"), ((3, 5), (7,)))
    logits = np.full((5, 1000), -1, np.float32)
    logits[0, [3, 900]] = 1, 9  # a cat; 900 is outside and must not win
    logits[1, 5] = 1  # the other kind of cat than its own: the same super-class
    logits[2, 7] = 1  # said to be a dog, is a cat
    logits[3, 7] = 1  # a dog
    target = np.array([3, 3, 5, 7, 900])  # the last is of no class of the set
    kept, place = table.restrict(target)
    assert kept.tolist() == [True, True, True, True, False]
    assert place.tolist() == [0, 0, 0, 1]
    assert in_distribution_accuracy(table, logits, target) == 3 / 4


def test_an_anchor_counts_only_where_all_its_near_frames_are_right() -> None:
    predicted = np.array([0, 0, 0, 1, 1, 2, 0])
    anchors = [
        Anchor(0, (1, 2), {0}),  # all right
        Anchor(1, (0, 3), {0}),  # one near frame wrong
        Anchor(3, (4,), {0, 1}),  # either class is right
        Anchor(5, (0,), {0}),  # itself wrong
        Anchor(6, (), {0}),  # nothing near it: judged alone
        Anchor(0, (5,), {0}, ({2, 7},)),  # a near frame with labels of its own
    ]
    found = frame_accuracy(predicted, anchors)
    assert (found.anchors, found.pm0, found.pmk) == (6, 5 / 6, 4 / 6)
    assert found.mean == pytest.approx(9 / 12)
    (low0, high0), (low, high) = found.intervals
    assert low0 < found.pm0 < high0
    assert low < found.pmk < high


def test_pm_k_equals_a_slow_count_and_never_exceeds_pm_0() -> None:
    generator = np.random.default_rng(4)
    predicted = generator.integers(0, 3, 400)
    anchors = [
        Anchor(int(frame), tuple(generator.integers(0, 400, generator.integers(0, 4)).tolist()), {0, 1})
        for frame in generator.integers(0, 400, 150)
    ]
    whole = 0
    for anchor in anchors:
        wrong = [frame for frame in (anchor.frame, *anchor.near) if predicted[frame] == 2]
        whole += not wrong
    found = frame_accuracy(predicted, anchors)
    assert found.pmk == whole / 150
    assert 0 < found.pmk < found.pm0


def test_objectnets_frame_is_cut_away() -> None:
    picture = Image.new("RGB", (20, 12), "red")
    picture.paste((0, 0, 255), (2, 2, 18, 10))
    inside = crop_objectnet(picture)
    assert inside.size == (16, 8)
    assert inside.getcolors() == [(16 * 8, (0, 0, 255))]


def test_what_cannot_be_scored_is_named() -> None:
    table = class_map("imagenet-a")
    with pytest.raises(DataError, match=r"\(4, 200\): expected \(images, 1000\)"):
        table.project(np.zeros((4, 200), np.float32))
    with pytest.raises(DataError, match="'imagenet-c': not a natural-shift set"):
        class_map("imagenet-c")
    with pytest.raises(DataError, match="no image of the set's classes"):
        in_distribution_accuracy(ClassMap(("cat",), ((3,),)), scores(1), np.array([4]))
    with pytest.raises(DataError, match="no anchor"):
        frame_accuracy(np.zeros(3, np.int64), [])
    with pytest.raises(DataError, match="4 x 9 pixels"):
        crop_objectnet(Image.new("RGB", (4, 9)))
    with pytest.raises(DataError, match="two classes"):
        ClassMap(("cat", "dog"), ((3,), (3,)))


def test_copied_accuracies_are_whole_numbers_of_images() -> None:
    # A check of the copying (experiments/figure13.py) and of the sizes here: a percentage with three decimals is that
    # of a whole number of images, or it is wrong.
    images = {name: shift.images for name, shift in SHIFTS.items() if not shift.frames}
    images |= {
        f"{short}_{k}": SHIFTS[f"{name}-robust"].images for short, name in FRAMES for k in ("pm0", "pm10")
    }
    images |= {column: PUBLISHED_SIZES[name][2] for column, name in VALIDATION.items()}
    with (Path(__file__).parents[2] / "experiments" / "figure13.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "testbed"]
    wrong = [
        (row["model"], column)
        for row in rows
        for column, count in images.items()
        if abs((right := float(row[column]) / 100 * count) - round(right)) > 0.0005 / 100 * count + 0.01
    ]
    assert (len(rows), wrong) == (37, [])
