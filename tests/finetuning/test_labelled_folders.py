"""What is said of data before a model is fine-tuned on them."""

import struct
from pathlib import Path

import pytest
from PIL import Image

from diptych.data.sources.opening import open_source
from diptych.errors import DataError
from diptych.runs.finetune_data import DataSummary, examine
from diptych.runs.finetune_recipe import FinetuneRequest, learning_rate, method_for, recipe_for
from tests.training.label_pictures import write_pictures


def found_in(folder: Path) -> DataSummary:
    return examine(open_source(folder))


def picture(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 8)).save(path)


def test_class_folders_are_counted(tmp_path: Path) -> None:
    found = found_in(write_pictures(tmp_path / "p"))
    assert (found.kind, found.images, found.classes) == ("labels", 24, ("blue", "green", "red"))
    assert (found.imbalance, found.unreadable, found.transparent, found.remarks) == (1.0, 0, False, ())


def test_labels_that_differ_in_case_or_spacing_alone_are_an_error_with_both_names(tmp_path: Path) -> None:
    for name in ("Red fox", "red_fox", "cat"):
        picture(tmp_path / name / "1.png")
    with pytest.raises(
        DataError, match=r"'Red fox' \(1\) and 'red_fox' \(1\) differ in case or spacing only; give"
    ):
        found_in(tmp_path)


def test_a_class_with_none_and_a_class_with_one_are_told(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p")
    (tmp_path / "p" / "yellow").mkdir()
    picture(tmp_path / "p" / "pink" / "1.png")
    first, second = found_in(tmp_path / "p").remarks
    assert "1 classes have one image" in first
    assert "pink" in first
    assert "folders without an image, whose classes will not be known: yellow" in second


def test_unreadable_files_are_counted_and_named_and_a_class_of_nothing_else_is_an_error(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path / "p")
    (tmp_path / "p" / "red" / "0.png").write_bytes(b"not a picture")
    found = found_in(tmp_path / "p")
    assert (found.images, found.unreadable, found.counts["red"]) == (23, 1, 7)
    assert "0.png" in found.remarks[0]
    bad = tmp_path / "p" / "mauve" / "x.png"
    bad.parent.mkdir()
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="no image of 'mauve' can be read"):
        found_in(tmp_path / "p")


def test_one_class_one_picture_and_a_picture_without_a_label_are_errors(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "cat" / "1.png")
    with pytest.raises(DataError, match="1 images can be read, expected two or more"):
        found_in(tmp_path / "a")
    picture(tmp_path / "a" / "cat" / "2.png")
    with pytest.raises(DataError, match="one class, 'cat'; expected two or more"):
        found_in(tmp_path / "a")
    picture(tmp_path / "a" / "dog" / "1.png")
    picture(tmp_path / "a" / "stray.png")
    with pytest.raises(DataError, match=r"1 of 4 images have no label \(stray.png\); move them"):
        found_in(tmp_path / "a")
    picture(tmp_path / "b" / "1.png")
    picture(tmp_path / "b" / "2.png")
    with pytest.raises(DataError, match="without labels and without captions"):
        found_in(tmp_path / "b")


def test_captions_beside_pictures_make_pairs_and_transparent_parts_are_seen(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.png", "RGBA")
        (tmp_path / f"{number}.txt").write_text("a square")
    found = found_in(tmp_path)
    assert (found.kind, found.counts, found.transparent) == ("pairs", {}, True)


def test_one_stray_caption_file_leaves_classes_of_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p")
    (tmp_path / "p" / "red" / "3.txt").write_text("a circle")
    found = found_in(tmp_path / "p")
    assert (found.kind, found.classes, found.remarks) == ("labels", ("blue", "green", "red"), ())


def test_class_folders_whose_pictures_have_captions_are_pairs_or_classes_by_the_method(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path / "p")
    for place in (tmp_path / "p").rglob("*.png"):
        place.with_suffix(".txt").write_text("a circle")
    source = open_source(tmp_path / "p")
    for method in (None, "contrastive", "lit", "lora"):
        found = examine(source, method=method)
        assert (found.kind, found.classes) == ("pairs", ())
        assert "to learn the names of their folders as classes, give --method head" in found.remarks[0]
    for method in ("head", "full", "lp-ft", "wise-ft", "flyp"):
        found = examine(source, method=method)  # type: ignore[arg-type]
        assert (found.kind, found.classes) == ("labels", ("blue", "green", "red"))
    for place in (tmp_path / "p" / "red").glob("*.png"):
        place.with_suffix(".json").write_text('{"label": "crimson"}')
    found = found_in(tmp_path / "p")
    assert (found.kind, found.classes) == ("labels", ("blue", "crimson", "green"))


def test_a_picture_of_200_megapixels_among_others_is_no_reason_to_stop(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", "RGBA")
    picture(tmp_path / "small.jpg")
    small = (tmp_path / "small.jpg").read_bytes()
    (tmp_path / "small.jpg").unlink()
    sides = small.index(b"\xff\xc0") + 5
    claimed = small[:sides] + struct.pack(">HH", 12240, 16320) + small[sides + 4 :]
    (tmp_path / "a" / "phone.jpg").write_bytes(claimed)
    found = found_in(tmp_path)
    assert (found.images, found.unreadable, found.transparent) == (6, 1, True)
    assert "phone.jpg" in found.remarks[0]


def sized(images: int, classes: int = 4, kind: str = "labels") -> DataSummary:
    counts = {str(number): images // classes for number in range(classes)} if kind == "labels" else {}
    return DataSummary(kind, images, counts, 0, False, ())  # type: ignore[arg-type]


def test_settings_follow_from_the_size_of_the_data() -> None:
    asked = FinetuneRequest(data="photos", model="diptych-mini")
    seen = []
    for images in (8, 80, 800, 8_000, 80_000):
        recipe = recipe_for(asked, sized(images), 3_000_000)
        training = recipe.training
        assert training.steps is not None
        assert 2 <= training.batch_size <= 128
        seen.append(training.steps * training.batch_size / images)  # views of each picture
        assert recipe.evaluation.best == "held_out_top1"
    assert seen[1:] == sorted(seen[1:], reverse=True)
    assert method_for(sized(8)) == "head"
    assert method_for(sized(80)) == "head"
    assert method_for(sized(8_000)) == "lp-ft"
    assert method_for(sized(80, kind="pairs")) == "contrastive"


def test_a_handful_of_pictures_begins_with_words_and_more_with_a_probe() -> None:
    for images, begins in ((8, "zero-shot"), (80, "probe")):
        asked = FinetuneRequest(data="photos", model="diptych-mini", method="head")
        settings = recipe_for(asked, sized(images), 3_000_000).finetune
        assert settings is not None
        assert settings.begins == begins


def test_two_pictures_have_a_recipe_in_which_nothing_is_held_out() -> None:
    recipe = recipe_for(FinetuneRequest(data="photos", model="diptych-mini"), sized(2, 2), 3_000_000)
    assert recipe.data.validation == 0.0
    assert (recipe.evaluation.best, recipe.evaluation.patience) == (None, None)
    assert recipe.training.batch_size == 2


def test_uneven_classes_are_seen_more_evenly_and_measured_by_class() -> None:
    uneven = DataSummary("labels", 100, {"a": 90, "b": 10}, 0, False, ())
    recipe = recipe_for(FinetuneRequest(data="photos", model="diptych-mini"), uneven, 3_000_000)
    assert recipe.data.balance == 0.5
    assert recipe.evaluation.best == "held_out_mean_per_class"


def test_larger_models_take_smaller_steps() -> None:
    rates = [learning_rate("wise-ft", weights) for weights in (3_000_000, 86_000_000, 304_000_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] == 3e-5
