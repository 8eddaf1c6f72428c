"""Datasets as people have them: copies in Parquet, in class folders, under any name, and sets with lists."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diptych.data.images.decoding import read_rgb
from diptych.data.left_out import left_out_of
from diptych.errors import DataError
from diptych.evaluation.datasets.benchmark import open_benchmark
from diptych.evaluation.datasets.dataset import all_datasets
from diptych.evaluation.datasets.finding import find_benchmark
from diptych.evaluation.datasets.set_classes import classes_of
from diptych.evaluation.datasets.set_files import names_of
from tests.evaluation.datasets import copied_layouts as copies
from tests.evaluation.datasets import published_layouts as layouts
from tests.evaluation.datasets.published_layouts import picture

Broken = tuple[Callable[[Path], None], Callable[[Path], None], str, str, str]
Labels = dict[int, str]  # the number of each picture, and its class

TINY = names_of("tiny_imagenet").names[:3]
BY_NUMBER = {number: str(number) for number in range(10)}
PACS = dict(enumerate(copies.KINDS * len(copies.DOMAINS)))

# What makes the files, the dataset and split, the root in the folder, and the classes of the pictures.
READ: list[tuple[Callable[[Path], None], str, str, Labels]] = [
    (copies.cifar10_hub, "cifar10:test", "", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_hub, "cifar10:test", "cifar10", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_hub, "cifar10:test", "cifar10/plain_text", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_converted, "cifar10:test", "", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_numbers, "cifar10:test", "cifar10.parquet", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_words, "cifar10:test", "downloads", {0: "truck", 1: "airplane", 2: "cat"}),
    (copies.cifar10_folders, "cifar10:test", "", dict(enumerate(copies.CIFAR))),
    (copies.cifar10_folders, "cifar10:test", "CIFAR-10-images", dict(enumerate(copies.CIFAR))),
    (copies.cifar10_folders, "cifar10:train", "", dict(enumerate(copies.CIFAR, 100))),
    (copies.cifar10_any_name, "cifar10:test", "archive", dict(enumerate(copies.CIFAR))),
    (copies.mnist_folders, "mnist:test", "", BY_NUMBER),
    (copies.mnist_folders, "mnist:train", "", {100 + number: name for number, name in BY_NUMBER.items()}),
    (copies.fer2013_folders, "fer2013:test", "", dict(enumerate(map(str, range(7))))),
    (copies.fer2013_folders, "fer2013:train", "fer2013", dict(enumerate(map(str, range(7)), 100))),
    (copies.caltech101_folders, "caltech101:all", "", dict(enumerate(names_of("caltech101").names))),
    (copies.gtsrb_png, "gtsrb:test", "", {0: "16", 1: "1"}),
    (copies.gtsrb_png, "gtsrb:train", "", {0: "20", 1: "0"}),
    (copies.pacs, "pacs:test", "", PACS),
    (copies.pacs_lists, "pacs:test", "", PACS),
    (copies.pacs_lists, "pacs:train", "", {n: kind for n, kind in PACS.items() if kind in ("dog", "elephant")}),
    (copies.pacs_lists, "pacs:val", "PACS/pacs_data", {n: kind for n, kind in PACS.items() if kind == "giraffe"}),
    (copies.tiny_imagenet, "tiny_imagenet:val", "", dict(enumerate(TINY))),
    (copies.tiny_imagenet, "tiny_imagenet:train", "", dict(enumerate(TINY, 100))),
    (copies.tiny_imagenet_moved, "tiny_imagenet:val", "tiny-imagenet-200", dict(enumerate(TINY))),
    (copies.grocery_store, "grocery_store:test", "", {0: "Banana", 1: "Granny-Smith"}),
    (copies.grocery_store, "grocery_store:train", "", {0: "Golden-Delicious"}),
    (copies.grocery_store, "grocery_store:val", "GroceryStoreDataset/dataset", {0: "Granny-Smith"}),
]  # fmt: skip


def contents(name: str, root: Path, split: str) -> dict[bytes, str]:
    source = open_benchmark(name, root, split).source
    examples = [source[position] for position in range(len(source))]
    return {read_rgb(example.image).tobytes(): str(example.label) for example in examples}


@pytest.mark.parametrize(
    ("make", "data", "root", "labels"),
    READ,
    ids=[f"{make.__name__}-{data}-{root}" for make, data, root, _ in READ],
)
def test_pictures_and_classes_of_a_copy(
    make: Callable[[Path], None], data: str, root: str, labels: Labels, tmp_path: Path
) -> None:
    make(tmp_path)
    name, _, split = data.partition(":")
    found = contents(name, tmp_path / root, split)
    assert found == {picture(number).tobytes(): label for number, label in labels.items()}
    classes = classes_of(name)
    assert classes is not None
    assert set(found.values()) <= set(classes.names)


def test_traffic_signs_of_32_pixels_are_read_by_their_tables(tmp_path: Path) -> None:
    copies.gtsrb_official(tmp_path)

    def expected(labels: Labels) -> dict[bytes, str]:
        return {picture(number, 32, 32).tobytes(): label for number, label in labels.items()}

    for root in (tmp_path, tmp_path / "GTSRB"):
        assert contents("gtsrb", root, "train") == expected({0: "0", 1: "14", 2: "42"})
        assert contents("gtsrb", root, "test") == expected({10: "16", 11: "15"})
    # The archive of the classes unpacks beside the folder of the images.
    table = tmp_path / "GTSRB" / "Final_Test" / "Images" / "GT-final_test.csv"
    table.rename(tmp_path / "GT-final_test.csv")
    assert contents("gtsrb", tmp_path, "test") == expected({10: "16", 11: "15"})


def test_a_copy_has_the_published_words_templates_and_metric(tmp_path: Path) -> None:
    copies.fer2013_folders(tmp_path)
    copies.tiny_imagenet(tmp_path)
    copies.grocery_store(tmp_path)
    faces = open_benchmark("fer2013", tmp_path)
    assert faces.labels is not None
    assert faces.labels.phrases[2:4] == (("fearful",), ("happy", "smiling"))
    assert faces.templates is not None
    assert faces.templates[0] == "a photo of a {} looking face."
    tiny = open_benchmark("tiny_imagenet", tmp_path)
    assert tiny.labels is not None
    assert (tiny.split, len(tiny.labels.names), tiny.labels.phrases[0]) == ("val", 200, ("goldfish",))
    assert tiny.templates is not None
    assert len(tiny.templates) == 80
    groceries = open_benchmark("grocery_store", tmp_path)
    assert groceries.labels is not None
    assert groceries.labels.phrases[:1] == (("Golden Delicious apple",),)
    copies.caltech101_folders(tmp_path)
    assert open_benchmark("caltech101", tmp_path).metric == "mean_per_class"


def test_domains_and_coarse_classes_are_metadata(tmp_path: Path) -> None:
    copies.pacs_lists(tmp_path)
    copies.grocery_store(tmp_path)
    source = open_benchmark("pacs", tmp_path, "val").source
    assert [source[position].metadata["domain"] for position in range(4)] == list(copies.DOMAINS)
    assert open_benchmark("grocery_store", tmp_path, "test").source[1].metadata == {"coarse": "Apple"}
    copies.parquet(tmp_path / "shift.parquet", ["dog"], None, domain=["sketch"])
    example = open_benchmark("pacs", tmp_path / "shift.parquet").source[0]
    assert (example.label, example.metadata["domain"]) == ("dog", "sketch")


def _remove(*paths: str) -> Callable[[Path], None]:
    def break_(root: Path) -> None:
        for path in paths:
            (shutil.rmtree if (root / path).is_dir() else Path.unlink)(root / path)

    return break_


def _move(path: str, to: str) -> Callable[[Path], None]:
    def break_(root: Path) -> None:
        (root / path).rename(root / to)

    return break_


def _text(path: str, *lines: str) -> Callable[[Path], None]:
    return lambda root: layouts.write(root / path, *lines)


SIGNS = "GTSRB/Final_Training/Images"
GROCERIES = "GroceryStoreDataset/dataset"

# What makes the files, what breaks them, the dataset and split, the root in the folder, and the message.
BROKEN: list[Broken] = [
    (copies.cifar10_hub, lambda root: copies.parquet(root / "cifar10/data/test.parquet", [1], copies.CIFAR),
     "cifar10:test", "", r"Parquet files of 'test' lie in several folders .*data.*plain_text.*keep one"),
    (copies.cifar10_words, lambda root: copies.parquet(root / "downloads/test-pacs.parquet", ["dog"], None),
     "cifar10:test", "downloads",
     r"downloads: several Parquet files of 'test' that are not numbered parts of one \(test-pacs\.parquet"),
    (copies.cifar10_hub, _remove(), "cifar10:train", "",
     r"split train: not found: .*cifar10 is there, but has no batches\.meta and no folder 'train' of class folders"),
    (copies.cifar10_numbers, _remove(), "cifar10:train", "cifar10.parquet",
     r"cifar10\.parquet: one file is one split, .*'test' of cifar10; for 'train', name the folder"),
    (copies.cifar10_numbers, _move("cifar10.parquet", "cifar10.csv"), "cifar10:test", "cifar10.csv",
     r"cifar10\.csv: is a file; expected .*the folder of cifar10, or a \.parquet file"),
    (layouts.cifar10, _remove("cifar-10-batches-py/test_batch"), "cifar10:test", "",
     r"test_batch: cannot be read \(No such file"),
    (copies.cifar10_folders, _remove("CIFAR-10-images/test/deer"), "cifar10:test", "",
     r"test: has no images of 1 of the 10 classes of CIFAR-10 \(deer\); expected a folder of images for each"),
    (copies.cifar10_folders, _move("CIFAR-10-images/test/deer", "CIFAR-10-images/test/stag"), "cifar10:test", "",
     r"test/stag: holds images, but is not the folder of one of the 10 classes of CIFAR-10 \(airplane, .*rename"),
    (copies.cifar10_any_name, _move("archive/Test/deer", "archive/Test/stag"), "cifar10:test", "archive",
     r"Test/stag: holds images.*\(.*archive was read as cifar10, because it holds no folder of that name\)"),
    (copies.mnist_folders, lambda root: copies.class_folders(root / "mnist_png/test", "0123456789"), "mnist:test", "",
     r"mnist_png: has several folders of the same split \(test, testing\); keep one"),
    (copies.fer2013_folders, _remove("fer2013/test/fear"), "fer2013:test", "",
     r"no images of 1 of the 7 classes of Facial Emotion Recognition 2013 \(2 \(fearful\)\)"),
    (copies.caltech101_folders, _remove("caltech-101/101_ObjectCategories/accordion"), "caltech101:all", "",
     r"101_ObjectCategories is there, but has no accordion in it"),
    (copies.gtsrb_official, _remove("GTSRB/Final_Test/Images/GT-final_test.csv"), "gtsrb:test", "",
     r"GT-final_test\.csv: no such table.*Final_Test_GT.*GT-final_test\.test\.csv has no classes"),
    (copies.gtsrb_official, _text(f"{SIGNS}/00014/GT-00014.csv", "Filename;ClassId", "00000_00000.ppm;15"),
     "gtsrb:train", "", r"GT-00014\.csv: '00000_00000\.ppm' has the class 15, but lies in another's folder"),
    (copies.gtsrb_official, _text(f"{SIGNS}/00014/GT-00014.csv", "Filename;ClassId", "00000_00000.ppm;43"),
     "gtsrb:train", "", r"GT-00014\.csv, line 2: the class is '43'; expected a file and a class, 0 to 42"),
    (copies.gtsrb_png, _text("gtsrb/Test.csv", "Width,Path", "8,Test/00000.png"), "gtsrb:test", "",
     r"Test\.csv: has no columns 'Path' and 'ClassId'"),
    (copies.pacs, _remove(), "pacs:train", "", r"PACS: has no lists of 'train'; expected pacs_label/.*all images are"),
    (copies.pacs, _remove("PACS/sketch"), "pacs:test", "", r"PACS/sketch: cannot be listed"),
    (copies.pacs, _move("PACS/sketch/dog", "PACS/sketch/wolf"), "pacs:test", "",
     r"sketch/wolf/pic_0\.jpg' is not domain/class/file.*the classes dog, elephant"),
    (copies.pacs_lists, _remove("PACS/pacs_label/photo_test_kfold.txt"), "pacs:test", "",
     r"photo_test_kfold\.txt: cannot be read"),
    (copies.pacs_lists, _text("PACS/pacs_label/photo_test_kfold.txt", "photo/dog/pic_0.jpg 7"), "pacs:test", "",
     r"photo_test_kfold\.txt, line 1: the class is '7' by its number, and 'dog' by its folder, which is 1"),
    (copies.pacs_lists, _text("PACS/splits/photo_test_kfold.txt", "photo/dog/pic_0.jpg 1"), "pacs:test", "",
     r"lists of 'test' lie in .*pacs_label and in .*splits; keep one"),
    (copies.tiny_imagenet, _text("tiny-imagenet-200/wnids.txt", "n01443537", "n99999999"), "tiny_imagenet:val", "",
     r"wnids\.txt: lists 2 classes, and differs in .*expected the 200 of Tiny ImageNet"),
    (copies.tiny_imagenet, _text("tiny-imagenet-200/val/val_annotations.txt", "val_0.JPEG"), "tiny_imagenet:val", "",
     r"val_annotations\.txt, line 1: 'val_0\.JPEG' names no class"),
    (copies.tiny_imagenet, _remove("tiny-imagenet-200/train"), "tiny_imagenet:train", "", r"train: cannot be listed"),
    (copies.grocery_store, _text(f"{GROCERIES}/test.txt", "test/Fruit/Banana/Banana_001.jpg, 6, 3"),
     "grocery_store:test", "", r"test\.txt, line 1: 'test/.*, 6, 3'; expected a path and the numbers"),
    (copies.grocery_store, _text(f"{GROCERIES}/classes.csv", "Class Name,Class ID", "Banana,6"),
     "grocery_store:test", "", r"classes\.csv: has no column 'Class Name \(str\)'"),
    (copies.grocery_store, _remove(f"{GROCERIES}/val.txt"), "grocery_store:val", "", r"val\.txt: cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize("case", BROKEN, ids=[f"{case[2]}-{number}" for number, case in enumerate(BROKEN)])
def test_a_copy_that_is_broken_or_ambiguous_is_an_error_with_its_place(case: Broken, tmp_path: Path) -> None:
    make, break_, data, root, message = case
    make(tmp_path)
    break_(tmp_path)
    name, _, split = data.partition(":")
    with pytest.raises(DataError, match=message) as caught:
        open_benchmark(name, tmp_path / root, split)
    assert str(tmp_path) in str(caught.value)


def test_a_listed_image_that_is_missing_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    copies.gtsrb_official(tmp_path)
    (tmp_path / SIGNS / "00014" / "00000_00000.ppm").unlink()
    source = open_benchmark("gtsrb", tmp_path, "train").source
    with pytest.raises(DataError, match=r"00014/00000_00000\.ppm: no such file, though .* lists it"):
        source[1]


def test_a_class_without_a_folder_is_remarked_on(tmp_path: Path) -> None:
    copies.caltech101_folders(tmp_path)
    assert not left_out_of(open_benchmark("caltech101", tmp_path).source).remarks
    shutil.rmtree(tmp_path / "caltech-101" / "101_ObjectCategories" / "BACKGROUND_Google")
    (remark,) = left_out_of(open_benchmark("caltech101", tmp_path).source).remarks
    assert "no folder for 1 of the 102 classes (BACKGROUND_Google (background))" in remark


def test_a_copy_that_was_split_anew_is_remarked_on(tmp_path: Path) -> None:
    copies.fer2013_folders(tmp_path)
    copies.class_folders(tmp_path / "fer2013" / "validation", copies.EMOTIONS, first=200)
    (remark,) = left_out_of(open_benchmark("fer2013", tmp_path).source).remarks
    assert "fer2013/validation: Facial Emotion Recognition 2013 has no validation part" in remark


def test_a_folder_of_any_name_is_read_when_it_is_named_and_never_listed(tmp_path: Path) -> None:
    copies.cifar10_any_name(tmp_path)
    assert find_benchmark("cifar10", tmp_path / "archive", "test") is None
    assert not any(
        find_benchmark(name, tmp_path, dataset.test_split)
        for name, dataset in all_datasets().items()
        if dataset.markers and name != "fashion_mnist"
    )


def test_other_ways_to_write_a_class_stand_for_classes() -> None:
    for name, dataset in all_datasets().items():
        classes = classes_of(name)
        assert not dataset.also or (classes and set(dataset.also.values()) <= set(classes.names)), name


def test_numbers_are_classes_only_where_the_file_of_the_dataset_says_so(tmp_path: Path) -> None:
    copies.parquet(tmp_path / "food101" / "test.parquet", [3, 0], None)
    assert set(contents("food101", tmp_path, "test").values()) == {"0", "3"}  # a measurement refuses them
    numbered = {name for name, dataset in all_datasets().items() if dataset.numbered}
    assert numbered == {"cifar10", "cifar100"}
    assert all(list(names_of(name).names) == sorted(names_of(name).names) for name in numbered)


def test_a_ppm_with_a_comment_has_the_same_pixels(tmp_path: Path) -> None:
    copies.gtsrb_official(tmp_path)
    image = open_benchmark("gtsrb", tmp_path, "test").source[1].image
    np.testing.assert_array_equal(read_rgb(image), picture(11, 32, 32))
