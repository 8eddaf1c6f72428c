"""Tiny datasets in the layouts of the copies that people have: Parquet files, class folders, lists."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image

from diptych.evaluation.datasets.set_files import names_of
from tests.evaluation.datasets.published_layouts import picture, save, write

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# As the folders of the copy are called, in the order of the numbers 0 to 6.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
KINDS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


def class_folders(place: Path, names: Iterable[str], *, first: int = 0, suffix: str = "jpg") -> None:
    """A picture a class, numbered from `first`."""
    for number, name in enumerate(names, first):
        save(place / name / f"{number:04d}.{suffix}", number)


def parquet(
    file: Path,
    labels: Sequence[int | str],
    names: Sequence[str] | None,
    image: str = "img",
    **further: Sequence[str],
) -> None:
    """Pictures 0, 1, ... with a label each, and further columns. names: of the numbers, in the schema's metadata."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": _png(number), "path": None} for number in range(len(labels))]
    table = pyarrow.table({image: pyarrow.array(images, kind), "label": labels, **further})
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, file)


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "PNG")
    return file.getvalue()


def cifar10_hub(root: Path) -> None:
    parquet(root / "cifar10" / "plain_text" / "test-00000-of-00001.parquet", [9, 0, 3], CIFAR)


def cifar10_converted(root: Path) -> None:
    parquet(root / "cifar10" / "plain_text" / "test" / "0000.parquet", [9, 0, 3], CIFAR, image="image")


def cifar10_numbers(root: Path) -> None:
    parquet(root / "cifar10.parquet", [9, 0, 3], None)


def cifar10_words(root: Path) -> None:
    parquet(root / "downloads" / "test.parquet", ["truck", "airplane", "cat"], None, image="image")


def cifar10_folders(root: Path) -> None:
    class_folders(root / "CIFAR-10-images" / "test", CIFAR)
    class_folders(root / "CIFAR-10-images" / "train", CIFAR, first=100)


def cifar10_any_name(root: Path) -> None:
    class_folders(root / "archive" / "Test", CIFAR)


def mnist_folders(root: Path) -> None:
    class_folders(root / "mnist_png" / "testing", map(str, range(10)), suffix="png")
    class_folders(root / "mnist_png" / "training", map(str, range(10)), first=100, suffix="png")


def fer2013_folders(root: Path) -> None:
    class_folders(root / "fer2013" / "test", EMOTIONS)
    class_folders(root / "fer2013" / "train", EMOTIONS, first=100)


def caltech101_folders(root: Path) -> None:
    class_folders(root / "caltech-101" / "101_ObjectCategories", names_of("caltech101").names)


def ppm(path: Path, number: int, side: int = 32, comment: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture(number, side, side).tobytes()
    path.write_bytes(b"P6\n" + comment + b"%d %d\n255\n" % (side, side) + pixels)


def gtsrb_official(root: Path) -> None:
    """32 pixels, as the archives of the final set unpack, with the table of the test classes beside the images."""
    base = root / "GTSRB"
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    for number, place in enumerate(("00000", "00014", "00042")):
        images = base / "Final_Training" / "Images" / place
        ppm(images / "00000_00000.ppm", number)
        ppm(images / "not_listed.ppm", 50)
        write(images / f"GT-{place}.csv", header, f"00000_00000.ppm;32;32;5;5;26;26;{int(place)}")
    tested = base / "Final_Test" / "Images"
    ppm(tested / "00000.ppm", 10)
    ppm(tested / "00001.ppm", 11, comment=b"# made by a program\n")
    write(tested / "GT-final_test.test.csv", header.removesuffix(";ClassId"), "00000.ppm;32;32;5;5;26;26")
    write(tested / "GT-final_test.csv", header, *(f"0000{n}.ppm;32;32;5;5;26;26;{16 - n}" for n in (0, 1)))


def gtsrb_png(root: Path) -> None:
    base = root / "gtsrb"
    header = ("Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId", "Path")
    for split, rows in {
        "Train": [("Train/20/00020_0.png", 20), ("Train/0/00000_0.png", 0)],
        "Test": [("Test/00000.png", 16), ("Test/00001.png", 1)],
    }.items():
        base.mkdir(parents=True, exist_ok=True)
        with (base / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *((8, 6, 0, 0, 7, 5, label, path) for path, label in rows)])
        for number, (path, _) in enumerate(rows):
            save(base / path, number)


def pacs(root: Path) -> None:
    """A picture a domain and class, numbered in this order."""
    paths = [f"{domain}/{kind}/pic_{number}.jpg" for domain in DOMAINS for number, kind in enumerate(KINDS)]
    for number, path in enumerate(paths):
        save(root / "PACS" / path, number)


def pacs_lists(root: Path) -> None:
    """The same below `pacs_data`, with lists: the first two classes to train, the third to validate."""
    pacs(root)
    base = root / "PACS"
    for domain in DOMAINS:
        (base / "pacs_data").mkdir(exist_ok=True)
        (base / domain).rename(base / "pacs_data" / domain)
        for part, kinds in {"train": (0, 1), "crossval": (2,), "test": range(7)}.items():
            lines = [f"{domain}/{KINDS[number]}/pic_{number}.jpg {number + 1}" for number in kinds]
            write(base / "pacs_label" / f"{domain}_{part}_kfold.txt", *lines)


def tiny_imagenet(root: Path) -> None:
    base = root / "tiny-imagenet-200"
    wnids = names_of("tiny_imagenet").names
    write(base / "wnids.txt", *reversed(wnids))
    write(base / "words.txt", "n01443537\tgoldfish, Carassius auratus", "n00001740\tentity")
    for number, wnid in enumerate(wnids[:3]):
        save(base / "train" / wnid / "images" / f"{wnid}_0.JPEG", 100 + number)
        write(base / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58")
        save(base / "val" / "images" / f"val_{number}.JPEG", number)
    boxes = (f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62" for number, wnid in enumerate(wnids[:3]))
    write(base / "val" / "val_annotations.txt", *boxes)
    save(base / "test" / "images" / "test_0.JPEG", 200)


def tiny_imagenet_moved(root: Path) -> None:
    """The validation images in class folders, as many programs move them."""
    tiny_imagenet(root)
    validation = root / "tiny-imagenet-200" / "val"
    for number, wnid in enumerate(names_of("tiny_imagenet").names[:3]):
        (validation / wnid).mkdir()
        (validation / "images" / f"val_{number}.JPEG").rename(validation / wnid / f"val_{number}.JPEG")
    (validation / "images").rmdir()


def grocery_store(root: Path) -> None:
    base = root / "GroceryStoreDataset" / "dataset"
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)"
    coarse = {"Golden-Delicious": ("Apple", 0), "Granny-Smith": ("Apple", 0), "Banana": ("Banana", 2)}
    rows = (
        f"{name},{number},{','.join(map(str, coarse.get(name, ('Other', 9))))},/iconic/{name}.jpg"
        for number, name in enumerate(names_of("grocery_store").names)
    )
    write(base / "classes.csv", header, *rows)
    lists = {
        "train": ["train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0"],
        "val": ["val/Fruit/Apple/Granny-Smith/Granny-Smith_001.jpg, 1, 0"],
        "test": [
            "test/Fruit/Banana/Banana_001.jpg, 6, 2",
            "test/Fruit/Apple/Granny-Smith/Granny-Smith_002.jpg, 1, 0",
        ],
    }
    for split, lines in lists.items():
        write(base / f"{split}.txt", *lines)
        for number, line in enumerate(lines):
            save(base / line.partition(",")[0], number)
