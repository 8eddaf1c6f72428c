"""Readers of the sets whose labels stand in annotation files: MATLAB tables, XML, JSON, or a text file an image."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.evaluation.datasets.listed_images import ListedImages, Row, read_lines, read_text
from diptych.evaluation.datasets.set_files import names_of

# Metres to the nearest vehicle at which the four classes begin; VTAB (Zhai et al. 2019), "closest vehicle distance".
_KITTI_BEGINS = (-100.0, 8.0, 20.0, 999.0)
_KITTI_VEHICLES = ("Car", "Van", "Truck")
_KITTI_NONE = 1000.0  # metres, for an image without a vehicle


def flowers102(folder: Path, split: str) -> Source:
    """Read Oxford Flowers (Nilsback and Zisserman 2008): `jpg/image_00001.jpg`, classes and splits in MATLAB files."""
    labels = _matlab(folder / "imagelabels.mat", "labels")
    parts = {"train": ["trnid"], "val": ["valid"], "trainval": ["trnid", "valid"], "test": ["tstid"]}[split]
    rows = []
    for number in (number for part in parts for number in _matlab(folder / "setid.mat", part)):
        if not 1 <= int(number) <= len(labels):
            raise DataError(
                f"{folder / 'setid.mat'}: image {number}, but imagelabels.mat has {len(labels)} labels"
            )
        rows.append(Row(f"image_{int(number):05d}.jpg", str(int(labels[int(number) - 1]))))
    return ListedImages(folder / "jpg", rows, str(folder / "setid.mat"))


def stanford_cars(folder: Path, split: str) -> Source:
    """Read Stanford Cars (Krause et al. 2013): images of a split in a folder, labels 1 to 196 in a MATLAB table."""
    if split == "train":
        file = folder / "devkit" / "cars_train_annos.mat"
    else:
        file = folder / "cars_test_annos_withlabels.mat"
        if not file.is_file():
            file = folder / "devkit" / file.name
    rows = [Row(str(row["fname"]), str(int(row["class"]))) for row in _matlab(file, "annotations")]
    return ListedImages(folder / f"cars_{split}", rows, str(file))


def voc2007(folder: Path, split: str) -> Source:
    """Read PASCAL VOC 2007 as multi-label classification (Everingham et al. 2010).

    Every example's metadata has `labels`, the classes in the image, and `difficult`, those that are only there as
    objects marked difficult: the challenge's evaluation leaves such an image out for the class.
    """
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    rows = []
    for line in read_lines(file):
        name = line.split()[0]
        annotation = folder / "Annotations" / f"{name}.xml"
        try:
            # The XML of a dataset that the user unpacked; entities that the parser would expand are refused below.
            text = read_text(annotation)
            if "<!ENTITY" in text:
                raise DataError(f"{annotation}: declares entities, which VOC's files do not; unpack it again")
            objects = [
                (item.findtext("name", ""), item.findtext("difficult", "0").strip() == "1")
                for item in ElementTree.fromstring(text).iter("object")
            ]
        except ElementTree.ParseError as error:
            raise DataError(
                f"{annotation}: not well-formed XML ({error}); unpack the annotations again"
            ) from None
        seen = {name for name, difficult in objects if not difficult}
        only_difficult = {name for name, _ in objects} - seen
        words = {"labels": tuple(sorted(seen)), "difficult": tuple(sorted(only_difficult))}
        rows.append(Row(f"{name}.jpg", metadata=words))
    return ListedImages(folder / "JPEGImages", rows, str(file))


def clevr_counts(folder: Path, split: str) -> Source:
    """Read CLEVR (Johnson et al. 2017): the number of objects, 3 to 10. Its own test split has no published scenes."""
    file = folder / "scenes" / f"CLEVR_{split}_scenes.json"
    rows = [
        Row(str(scene["image_filename"]), str(len(scene["objects"])))
        for scene in _json_list(file, "scenes", ("image_filename", "objects"))
    ]
    return ListedImages(folder / "images" / split, rows, str(file))


def kitti_distance(folder: Path, split: str) -> Source:
    """Read KITTI (Geiger et al. 2012): how far the nearest car, van or truck is, in VTAB's four classes.

    Only the images of `training/` have labels. VTAB's division of them into 6,770 and 711 follows TensorFlow
    Datasets and is not part of KITTI, so the split is `all`.
    """
    boxes = folder / "training" / "label_2"
    rows = []
    for image in sorted((folder / "training" / "image_2").glob("*.png")):
        distances = [_KITTI_NONE]
        for line in read_text(boxes / f"{image.stem}.txt").splitlines():
            fields = line.split()
            if fields and fields[0] in _KITTI_VEHICLES:
                if len(fields) < 15:
                    raise DataError(f"{boxes / image.stem}.txt: a line of {len(fields)} fields; expected 15")
                distances.append(float(fields[13]))  # z, metres in front of the camera
        label = max(place for place, begin in enumerate(_KITTI_BEGINS) if begin < min(distances))
        rows.append(Row(image.name, str(label)))
    return ListedImages(folder / "training" / "image_2", rows, str(boxes))


def gtsrb(folder: Path, split: str) -> Source:
    """Read German traffic signs (Stallkamp et al. 2012): PPM files, and tables of their classes.

    The training images are those of the challenge (`Training`, 26,640 of them) or else of the final set
    (`Final_Training/Images`, 39,209): a folder for each class, with its table `GT-00000.csv`, or without. The copy that
    has `Train.csv`, `Test.csv` and PNG files is read, too.
    """
    table = folder / f"{split.title()}.csv"
    if table.is_file():
        return ListedImages(folder, _signs(table, "Path"), str(table))
    base = folder / "GTSRB" if (folder / "GTSRB").is_dir() else folder
    if split == "test":
        images = base / "Final_Test" / "Images"
        tables = [place / "GT-final_test.csv" for place in (base.parent, base, images.parent, images)]
        table = next((table for table in tables if table.is_file()), tables[0])
        if not table.is_file():
            raise DataError(
                f"{table}: no such table of the test images' classes; expected it there or in {images}: it comes in an "
                "archive of its own (Final_Test_GT), and GT-final_test.test.csv has no classes"
            )
        return ListedImages(images, _signs(table, "Filename"), str(table))
    bases = [base / "Training", base / "Final_Training" / "Images"]
    base = next((base for base in bases if base.is_dir()), bases[-1])
    rows: list[Row] = []
    for place in sorted(base.glob("[0-9]*/")):
        table = place / f"GT-{place.name}.csv"
        if not table.is_file():
            rows += [
                Row(f"{place.name}/{file.name}", str(int(place.name))) for file in sorted(place.glob("*.ppm"))
            ]
            continue
        for row in _signs(table, "Filename"):
            if row.label != str(int(place.name)):
                raise DataError(
                    f"{table}: {row.file!r} has the class {row.label}, but lies in another's folder; unpack it again"
                )
            rows.append(Row(f"{place.name}/{row.file}", row.label))
    return ListedImages(base, rows, f"{base} and its tables")


def _signs(table: Path, path: str) -> list[Row]:
    """Return the rows of a table of traffic signs. path: the column of the files."""
    lines = read_text(table).splitlines()
    delimiter = ";" if lines and ";" in lines[0] else ","
    rows = []
    for number, line in enumerate(csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True), start=2):
        if path not in line or "ClassId" not in line:
            raise DataError(
                f"{table}: has no columns {path!r} and 'ClassId'; expected them in the first line"
            )
        label = line["ClassId"] or ""
        if not line[path] or label not in names_of("gtsrb").names:
            raise DataError(
                f"{table}, line {number}: the class is {label!r}; expected a file and a class, 0 to 42"
            )
        rows.append(Row(line[path], label))
    return rows


def karpathy(file: Path, images: Path, split: str) -> Source:
    """Read a retrieval set in the form of Karpathy and Fei-Fei (2015): one JSON file with every image's split and its
    captions, of which there are usually five.

    images: the folder of the images; each of COCO's lies in one more, named in its `filepath`.
    """
    # COCO's validation images that are left over belong to the training data, as published figures have it.
    wanted = ("train", "restval") if split == "train" else (split,)
    rows = []
    for image in _json_list(file, "images", ("filename", "split", "sentences")):
        if image["split"] in wanted:
            captions = tuple(str(sentence["raw"]).strip() for sentence in image["sentences"])
            path = "/".join(part for part in (str(image.get("filepath", "")), str(image["filename"])) if part)
            rows.append(Row(path, captions=captions))
    return ListedImages(images, rows, f"{file} as {split!r}")


def _json_list(file: Path, name: str, needed: tuple[str, ...]) -> Sequence[dict[str, Any]]:
    """Return the list `name` of a JSON object, each of whose items has the `needed` fields."""
    try:
        items = json.loads(read_text(file))[name]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: {error!r}; expected a JSON object with a list {name!r}") from None
    for number, item in enumerate(items):
        if missing := [field for field in needed if field not in item]:
            raise DataError(f"{file}: item {number} of {name!r} has no {missing[0]!r}")
    return list(items)


def _matlab(file: Path, name: str) -> Any:
    """Return a variable of a MATLAB 5 file: an array, or one of records for a table."""
    from scipy.io import loadmat  # noqa: PLC0415
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    if not file.is_file():
        raise DataError(f"{file}: no such file; unpack the dataset again")
    try:
        return np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=[name])[name])
    except (MatReadError, KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise DataError(
            f"{file}: cannot be read ({error!r}); expected a MATLAB 5 file with {name!r}"
        ) from None
