"""Tiny datasets in the layouts that the authors' archives unpack to, made file by file."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

Pixels = npt.NDArray[np.uint8]


def picture(number: int, height: int = 6, width: int = 8) -> Pixels:
    """A picture (height, width, 3) like no other number's."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, number: int) -> None:
    """A picture without loss, whatever the suffix says: every reader goes by the first bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path, "PNG")


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def food101(root: Path) -> None:
    lists = {
        "train": {"apple_pie": ["apple_pie/1"]},
        "test": {"apple_pie": ["apple_pie/2"], "waffles": ["waffles/3"]},
    }
    for split, classes in lists.items():
        files = [name for names in classes.values() for name in names]
        write(root / "food-101" / "meta" / f"{split}.txt", *files)
        write(root / "food-101" / "meta" / f"{split}.json", json.dumps(classes))
        for name in files:
            save(root / "food-101" / "images" / f"{name}.jpg", int(name[-1]))


def dtd(root: Path) -> None:
    for number, (part, name) in enumerate(
        [("train", "banded/banded_0002.jpg"), ("val", "dotted/dotted_1.jpg"), ("test", "zigzagged/z_7.jpg")]
    ):
        write(root / "dtd" / "dtd" / "labels" / f"{part}1.txt", name)
        save(root / "dtd" / "dtd" / "images" / name, number)


def oxford_pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    write(base / "annotations" / "trainval.txt", "Abyssinian_100 1 1 1")
    write(
        base / "annotations" / "test.txt",
        "Abyssinian_201 1 1 1",
        "american_bulldog_203 2 2 1",
        "British_Shorthair_4 3 1 1",
    )
    for number, name in enumerate(
        ["Abyssinian_100", "Abyssinian_201", "american_bulldog_203", "British_Shorthair_4"]
    ):
        save(base / "images" / f"{name}.jpg", number)


def fgvc_aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    write(base / "variants.txt", "707-320", "BAE 146-200", "F-16A/B")
    for number, (split, variant) in enumerate(
        [("train", "707-320"), ("val", "BAE 146-200"), ("test", "F-16A/B"), ("trainval", "707-320")]
    ):
        write(base / f"images_variant_{split}.txt", f"{1025794 + number} {variant}")
        save(base / "images" / f"{1025794 + number}.jpg", number)


def sun397(root: Path) -> None:
    base = root / "SUN397"
    write(base / "ClassName.txt", "/a/abbey", "/a/apartment_building/outdoor")
    write(base / "Training_01.txt", "/a/abbey/sun_1.jpg")
    write(base / "Testing_01.txt", "/a/abbey/sun_2.jpg", "/a/apartment_building/outdoor/sun_3.jpg")
    for number, name in enumerate(["abbey/sun_1", "abbey/sun_2", "apartment_building/outdoor/sun_3"]):
        save(base / "a" / f"{name}.jpg", number)


def classes_of_folders(place: str, *names: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number, name in enumerate(names):
            save(root / place / name, number)

    return make


caltech101 = classes_of_folders(
    "caltech101/101_ObjectCategories",
    "BACKGROUND_Google/image_0001.jpg",
    "Faces_easy/image_0001.jpg",
    "accordion/image_0001.jpg",
    "accordion/image_0002.jpg",
)
eurosat = classes_of_folders("eurosat/2750", "AnnualCrop/AnnualCrop_1.jpg", "SeaLake/SeaLake_1.jpg")
resisc45 = classes_of_folders(
    "NWPU-RESISC45", "airplane/airplane_001.jpg", "baseball_diamond/baseball_diamond_001.jpg"
)
country211 = classes_of_folders(
    "country211", "test/AD/1.jpg", "test/ZW/2.jpg", "valid/AD/3.jpg", "train/AD/4.jpg"
)
rendered_sst2 = classes_of_folders(
    "rendered-sst2",
    "train/negative/1.png",
    "train/positive/2.png",
    "valid/negative/3.png",
    "valid/positive/4.png",
    "test/negative/5.png",
    "test/positive/6.png",
)
kinetics700 = classes_of_folders("kinetics700", "val/abseiling/a.jpg", "val/zumba/b.jpg")
imagenet = classes_of_folders(
    "imagenet", "val/n01440764/ILSVRC2012_val_00000293.JPEG", "val/n01443537/ILSVRC2012_val_00000236.JPEG"
)
imagenet_v2 = classes_of_folders(
    "imagenetv2-matched-frequency-format-val", "0/a.jpeg", "10/b.jpeg", "999/c.jpeg"
)
imagenet_r = classes_of_folders("imagenet-r", "n01443537/art_0.jpg", "n01484850/cartoon_1.jpg")
imagenet_a = classes_of_folders("imagenet-a", "n01498041/0.1.jpg", "n01531178/0.2.jpg")
imagenet_sketch = classes_of_folders("sketch", "n01440764/sketch_1.JPEG", "n01443537/sketch_2.JPEG")
objectnet = classes_of_folders("objectnet-1.0", "images/alarm_clock/1.png", "images/air_freshener/2.png")


def flowers102(root: Path) -> None:
    base = root / "flowers-102"
    for number in range(1, 7):
        save(base / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(base / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 102, 5, 5]], np.uint8)})
    splits = {"trnid": [[4, 1]], "valid": [[5, 6]], "tstid": [[3, 2]]}
    savemat(base / "setid.mat", {name: np.array(numbers, np.uint16) for name, numbers in splits.items()})


def stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    kind = [("fname", object), ("class", object)]
    for split, cars in {
        "train": [("00001.jpg", 14), ("00002.jpg", 2)],
        "test": [("00001.jpg", 181), ("00002.jpg", 1)],
    }.items():
        for number, (name, _) in enumerate(cars):
            save(base / f"cars_{split}" / name, number + 10 * (split == "test"))
        file = base / (
            "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
        )
        file.parent.mkdir(exist_ok=True)
        savemat(file, {"annotations": np.array([cars], dtype=kind)})
    names = np.array([[f"car {number}" for number in range(1, 197)]], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})


def voc2007(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2007"
    images = {
        "000001": [("dog", 0), ("person", 0), ("person", 1)],
        "000002": [("train", 1)],
        "000003": [("sofa", 0), ("chair", 1)],
    }
    write(base / "ImageSets" / "Main" / "test.txt", *images)
    for name, objects in images.items():
        items = "".join(
            f"<object><name>{kind}</name><difficult>{difficult}</difficult></object>"
            for kind, difficult in objects
        )
        write(
            base / "Annotations" / f"{name}.xml",
            f"<annotation><filename>{name}.jpg</filename>{items}</annotation>",
        )
        save(base / "JPEGImages" / f"{name}.jpg", int(name))


def clevr_counts(root: Path) -> None:
    base = root / "clevr" / "CLEVR_v1.0"
    counts = {"CLEVR_val_000000.png": 10, "CLEVR_val_000001.png": 3}
    scenes = [{"image_filename": name, "objects": [{}] * count} for name, count in counts.items()]
    write(base / "scenes" / "CLEVR_val_scenes.json", json.dumps({"info": {}, "scenes": scenes}))
    for number, name in enumerate(counts):
        save(base / "images" / "val" / name, number)


KITTI = {
    "000000": [("Car", 5.5), ("Pedestrian", 1.0)],
    "000001": [("Truck", 8.01), ("Car", 300.0)],
    "000002": [("Van", 46.7)],
    "000003": [("Cyclist", 4.0), ("DontCare", -1000.0)],
}


def kitti_distance(root: Path) -> None:
    base = root / "Kitti" / "raw" / "training"
    for number, (name, objects) in enumerate(KITTI.items()):
        save(base / "image_2" / f"{name}.png", number)
        lines = [f"{kind} 0.00 0 -1.5 10 20 30 40 1.5 1.6 3.7 -2.0 1.6 {z} -1.6" for kind, z in objects]
        write(base / "label_2" / f"{name}.txt", *lines)


def gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    write(base / "GT-final_test.csv", header, "00000.ppm;8;6;0;0;7;5;16", "00001.ppm;8;6;0;0;7;5;0")
    for number, name in enumerate(
        [
            "Final_Test/Images/00000",
            "Final_Test/Images/00001",
            "Training/00000/00000_00000",
            "Training/00042/00000_00001",
        ]
    ):
        path = base / "GTSRB" / f"{name}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path, "PPM")


def birdsnap(root: Path) -> None:
    base = root / "birdsnap"
    write(
        base / "species.txt",
        "id\tcommon\tscientific\tdir",
        "1\tAcadian Flycatcher\tEmpidonax virescens\tAcadian_Flycatcher",
        "2\tAllen's Hummingbird\tSelasphorus sasin\tAllens_Hummingbird",
    )
    rows = [("Acadian_Flycatcher/1.jpg", 1), ("Acadian_Flycatcher/2.jpg", 1), ("Allens_Hummingbird/3.jpg", 2)]
    rows.append(("Allens_Hummingbird/gone.jpg", 2))
    write(
        base / "images.txt",
        "url\tmd5\tpath\tspecies_id\tbb_x1",
        *(f"http://example.org\t0\t{path}\t{number}\t4" for path, number in rows),
    )
    write(
        base / "test_images.txt", "path", "Acadian_Flycatcher/2.jpg", "Allens_Hummingbird/3.jpg", rows[3][0]
    )
    for number, (path, _) in enumerate(rows[:3]):
        save(base / "images" / path, number)


def ucf101(root: Path) -> None:
    base = root / "ucf101"
    clips = ["Archery/v_Archery_g01_c01", "HandStandPushups/v_HandStandPushups_g01_c01"]
    write(base / "ucfTrainTestlist" / "testlist01.txt", *(f"{clip}.avi" for clip in clips))
    write(base / "ucfTrainTestlist" / "trainlist01.txt", "Archery/v_Archery_g08_c01.avi 3")
    for number, clip in enumerate([*clips, "Archery/v_Archery_g08_c01"]):
        save(base / "frames" / f"{clip}.jpg", number)


def hateful_memes(root: Path) -> None:
    base = root / "hateful_memes"
    lines = [
        {"id": n, "img": f"img/0{n}.png", "label": n % 2, "text": f"words {n}"} for n in (1235, 1236, 1743)
    ]
    write(base / "dev_seen.jsonl", *(json.dumps(line) for line in lines[:2]))
    write(base / "train.jsonl", json.dumps(lines[2]))
    for line in lines:
        save(base / str(line["img"]), int(str(line["id"])))


def mnist(root: Path, folder: str = "mnist", *, packed: bool = True) -> None:
    for number, name in enumerate(["train", "t10k"]):
        count = 5 + number
        pixels = np.random.default_rng(number).integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8)[::-1]
        for kind, values in ((f"{name}-images-idx3-ubyte", pixels), (f"{name}-labels-idx1-ubyte", labels)):
            shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
            data = bytes((0, 0, 8, values.ndim)) + shape + values.tobytes()
            path = root / folder / (f"{kind}.gz" if packed else kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(data) if packed else data)


def cifar10(root: Path) -> None:
    base = root / "cifar-10-batches-py"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    base.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]):
        raw = np.random.default_rng(number).integers(0, 256, (2, 3072), np.uint8)
        (base / name).write_bytes(python2_pickle({"data": raw, "labels": [number, 9 - number]}))
    (base / "batches.meta").write_bytes(python2_pickle({"label_names": names}))


def cifar100(root: Path, names: Sequence[str]) -> None:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    for number, name in enumerate(("train", "test")):
        raw = np.random.default_rng(number).integers(0, 256, (3, 3072), np.uint8)
        labels: dict[str, Any] = {"data": raw, "fine_labels": [0, 55, 99], "coarse_labels": [4, 0, 13]}
        (base / name).write_bytes(python2_pickle(labels))
    (base / "meta").write_bytes(
        python2_pickle({"fine_label_names": list(names), "coarse_label_names": ["fish"]})
    )


def python2_pickle(values: dict[str, Any]) -> bytes:
    """A dictionary as Python 2 wrote it with protocol 2: strings of bytes, arrays through `_reconstruct`."""

    def put(value: Any) -> bytes:
        if isinstance(value, str | bytes):
            raw = value.encode() if isinstance(value, str) else value
            short = len(raw) < 256
            return (b"U" + bytes([len(raw)]) if short else b"T" + len(raw).to_bytes(4, "little")) + raw
        if isinstance(value, int):
            return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")
        if isinstance(value, list):
            return b"](" + b"".join(map(put, value)) + b"e"
        shape = b"".join(map(put, value.shape)) + b"\x86"
        dtype = (
            b"cnumpy\ndtype\n"
            + put("u1")
            + b"K\x00K\x01\x87R(K\x03"
            + put("|")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + put("b") + b"\x87R"
        return array + b"(K\x01" + shape + dtype + b"\x89" + put(value.tobytes()) + b"tb"

    return b"\x80\x02}(" + b"".join(put(key) + put(value) for key, value in values.items()) + b"u."


def stl10(root: Path) -> None:
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    write(base / "class_names.txt", *names)
    for number, (part, labels) in enumerate(
        {"train": [1, 10, 3, 5], "test": [2, 7], "unlabeled": [1]}.items()
    ):
        raw = np.random.default_rng(number).integers(0, 256, (len(labels), 3, 96, 96), np.uint8)
        (base / f"{part}_X.bin").write_bytes(raw.tobytes())
        if part != "unlabeled":
            (base / f"{part}_y.bin").write_bytes(bytes(labels))
    write(base / "fold_indices.txt", *(f"{fold % 4} {(fold + 1) % 4} " for fold in range(10)))


def fer2013(root: Path) -> None:
    base = root / "fer2013"
    base.mkdir(parents=True)
    with (base / "fer2013.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["emotion", "pixels", "Usage"])
        for number, usage in enumerate(["Training", "PublicTest", "PrivateTest"]):
            grey = np.random.default_rng(number).integers(0, 256, 48 * 48)
            table.writerow([number + 4, " ".join(map(str, grey)), usage])


def retrieval(root: Path) -> None:
    """Flickr30k and COCO with Karpathy's splits."""

    def image(name: str, split: str, *captions: str, **more: str) -> dict[str, Any]:
        return {"filename": name, "split": split, "sentences": [{"raw": text} for text in captions], **more}

    flickr = [image("1.jpg", "test", "A dog runs .", "Dog ."), image("2.jpg", "train", "A cat .")]
    coco = [
        image("a.jpg", "test", "One", " Two ", filepath="val2014"),
        image("b.jpg", "restval", "Three", filepath="val2014"),
        image("c.jpg", "train", "Four", filepath="train2014"),
    ]
    write(root / "flickr30k" / "dataset_flickr30k.json", json.dumps({"images": flickr}))
    write(root / "coco" / "dataset_coco.json", json.dumps({"images": coco}))
    for number, name in enumerate(["flickr30k/flickr30k-images/1", "flickr30k/flickr30k-images/2", "coco/val2014/a",
                                   "coco/val2014/b", "coco/train2014/c"]):  # fmt: skip
        save(root / f"{name}.jpg", number)


def vid_robust(root: Path, folder: str = "imagenet-vid-robust") -> None:
    base = root / folder
    near = {"val/v1/000010.JPEG": ["val/v1/000009.JPEG", "val/v1/000010.JPEG"], "val/v2/000000.JPEG": []}
    labels = {"val/v1/000010.JPEG": [3], "val/v1/000009.JPEG": [3, 4], "val/v2/000000.JPEG": [0]}
    write(base / "metadata" / "pmsets.json", json.dumps(near))
    write(base / "metadata" / "labels.json", json.dumps(labels))
    for number, name in enumerate(labels):
        save(base / name, number)
