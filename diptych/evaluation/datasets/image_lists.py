"""Readers of the sets that are image files: in a folder a class, or listed in text files.

Each takes the dataset's folder and a split, and gives a source whose labels are the names in `sets/*.toml`. The
layouts are those that the authors' archives unpack to, which torchvision's datasets read too.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from diptych.data.sources.folder import FolderSource, list_folder
from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.evaluation.datasets.listed_images import (
    ListedImages,
    Relabelled,
    Row,
    read_lines,
    read_text,
)
from diptych.evaluation.datasets.set_files import names_of

_PACS_DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


def class_folders(folder: Path) -> Source:
    """Read a folder a class."""
    return FolderSource(folder, list_folder(folder))


def imagenet_v2(folder: Path, split: str) -> Source:
    """Read ImageNetV2 (Recht et al. 2019): folders 0 to 999, which are the class numbers."""
    ids = names_of("imagenet").names
    return Relabelled(class_folders(folder), {str(number): wnid for number, wnid in enumerate(ids)})


def food101(folder: Path, split: str) -> Source:
    """Read Food-101 (Bossard et al. 2014): `meta/test.txt` lists `apple_pie/1011328`, an image in `images/`."""
    return _listed(
        folder / "images", folder / "meta" / f"{split}.txt", lambda line: (f"{line}.jpg", _parent(line))
    )


def dtd(folder: Path, split: str) -> Source:
    """Read Describable Textures (Cimpoi et al. 2014), the first of its ten partitions, as the paper has it."""
    parts = ("train", "val") if split == "trainval" else (split,)
    return _joined(
        folder / "images",
        [folder / "labels" / f"{part}1.txt" for part in parts],
        lambda line: (line, _parent(line)),
    )


def oxford_pets(folder: Path, split: str) -> Source:
    """Read Oxford-IIIT Pets (Parkhi et al. 2012): lines such as `Abyssinian_201 1 1 1`; the breed is in the name."""

    def row(line: str) -> tuple[str, str]:
        name = line.split(maxsplit=1)[0]
        return f"{name}.jpg", name.rpartition("_")[0]

    return _listed(folder / "images", folder / "annotations" / f"{split}.txt", row, skip="#")


def fgvc_aircraft(folder: Path, split: str) -> Source:
    """Read FGVC Aircraft (Maji et al. 2013), its 100 variants: lines such as `1025794 707-320`."""

    def row(line: str) -> tuple[str, str]:
        number, _, variant = line.partition(" ")
        return f"{number}.jpg", variant.strip()

    return _listed(folder / "data" / "images", folder / "data" / f"images_variant_{split}.txt", row)


def sun397(folder: Path, split: str) -> Source:
    """Read SUN397 (Xiao et al. 2010), the first of ten partitions: lines such as `/a/abbey/sun_aaalbzqrimafwbiv.jpg`.

    A class is the path without its first letter, `apartment_building/outdoor` written `apartment_building_outdoor`.
    """
    part = {"train": "Training", "test": "Testing"}[split]
    file = next(
        (place for place in (folder, folder / "Partitions") if (place / f"{part}_01.txt").is_file()), folder
    )
    return _listed(
        folder,
        file / f"{part}_01.txt",
        lambda line: (line.lstrip("/"), "_".join(line.strip("/").split("/")[1:-1])),
    )


def birdsnap(folder: Path, split: str) -> Source:
    """Read Birdsnap 1.1 (Berg et al. 2014): tables of species and images, and the paths of the test images.

    The images were fetched from Flickr one by one, and by now many are gone: those that are not there are left out,
    so figures of two copies are comparable only where both have the same images.
    """
    species = {row["id"]: row["dir"] for row in _table(folder / "species.txt", ("id", "dir"))}
    tested = set(list(read_lines(folder / "test_images.txt"))[1:])
    rows = []
    for row in _table(folder / "images.txt", ("path", "species_id")):
        path, number = row["path"], row["species_id"]
        if number not in species:
            raise DataError(
                f"{folder / 'images.txt'}: {path!r} is of the species {number!r}, not in species.txt"
            )
        if (path in tested) == (split == "test") and (folder / "images" / path).is_file():
            rows.append(Row(path, species[number]))
    return ListedImages(
        folder / "images", rows, f"{folder / 'images.txt'} (and there on the disk, split {split})"
    )


def ucf101(folder: Path, split: str) -> Source:
    """Read UCF101 (Soomro et al. 2012): one frame a clip, extracted from the videos beforehand.

    The lists are the authors': `testlist01.txt` with lines such as `Archery/v_Archery_g01_c01.avi`, the frame being
    `frames/Archery/v_Archery_g01_c01.jpg`. Splits are train1 to train3 and test1 to test3; the paper averages
    over the three and takes the middle frame.
    """
    part, number = split[:-1], split[-1]
    file = folder / "ucfTrainTestlist" / f"{part}list0{number}.txt"

    def row(line: str) -> tuple[str, str]:
        clip = line.split(maxsplit=1)[0]
        # The lists and the folders disagree on the capital of this one class.
        label = _parent(clip).replace("HandStandPushups", "HandstandPushups")
        return f"{clip.removesuffix('.avi')}.jpg", label

    return _listed(folder / "frames", file, row)


def hateful_memes(folder: Path, split: str) -> Source:
    """Read Hateful Memes (Kiela et al. 2020): lines of JSON with `img` and `label`, 1 for hateful.

    The `test` of the paper are the 500 of `dev_seen.jsonl` (`dev.jsonl` in the first release), whose labels were
    public.
    """
    names = {"train": ("train.jsonl",), "test": ("dev_seen.jsonl", "dev.jsonl")}[split]
    file = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    rows = []
    for number, line in enumerate(read_lines(file), start=1):
        try:
            record = json.loads(line)
            rows.append(
                Row(record["img"], str(int(record["label"])), metadata={"text": record.get("text", "")})
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number}: {error!r}; expected an object with 'img' and 'label', such as "
                '{"img": "img/01235.png", "label": 0}'
            ) from None
    return ListedImages(folder, rows, str(file))


def tiny_imagenet(folder: Path, split: str) -> Source:
    """Read Tiny ImageNet (Le and Yang 2015): `train/n01443537/images/*.JPEG`; `val_annotations.txt` for validation.

    Copies whose validation images were moved to class folders are read, too.
    """
    known = names_of("tiny_imagenet").names
    found = list(read_lines(folder / "wnids.txt"))
    if set(found) != set(known):
        odd = sorted(set(found) ^ set(known))
        raise DataError(
            f"{folder / 'wnids.txt'}: lists {len(found):,} classes, and differs in {odd[0]!r}; expected the "
            f"{len(known)} of Tiny ImageNet: unpack it again"
        )
    images = folder / split
    if split == "val" and (images / "images").is_dir():
        return _listed(images / "images", images / "val_annotations.txt", _annotation)
    # train/n01443537/images/n01443537_0.JPEG
    rows = [Row(name, name.partition("/")[0]) for name in list_folder(images).images]
    return ListedImages(images, rows, str(images))


def _annotation(line: str) -> tuple[str, str]:
    """Return the file and the class of a line such as `val_0.JPEG	n03444034	0	32	44	62`; the box is not used."""
    file, _, rest = line.partition("\t")
    return file, rest.partition("\t")[0]


def pacs(folder: Path, split: str) -> Source:
    """Read PACS (Li et al. 2017): `photo/dog/056_0001.jpg`, and lists with lines such as `photo/dog/056_0001.jpg 1`.

    The authors' lists for testing hold all images of a domain; without lists, `test` is all images. Every example's
    metadata has its `domain`.
    """
    part = {"val": "crossval"}.get(split, split)
    homes = (folder / name for name in ("", "pacs_data", "images", "kfold"))
    images = next((home for home in homes if (home / _PACS_DOMAINS[0]).is_dir()), folder)
    near = [folder, *folder.glob("*/"), folder.parent / "pacs_label"]
    lists = sorted({file.parent for place in near for file in place.glob(f"*_{part}_kfold.txt")})
    if len(lists) > 1:
        raise DataError(
            f"{folder}: lists of {split!r} lie in {' and in '.join(map(str, lists))}; keep one of them"
        )
    if lists:
        files = [lists[0] / f"{domain}_{part}_kfold.txt" for domain in _PACS_DOMAINS]
        lines = [
            (f"{file}, line {number}", *line.rpartition(" ")[::2])
            for file in files
            for number, line in enumerate(read_lines(file), start=1)
        ]
        return ListedImages(images, [_pacs_row(*line) for line in lines], " and ".join(map(str, files)))
    if split != "test":
        raise DataError(
            f"{folder}: has no lists of {split!r}; expected pacs_label/{_PACS_DOMAINS[0]}_{part}_kfold.txt and so on; "
            "without lists, all images are 'test'"
        )
    paths = [f"{domain}/{name}" for domain in _PACS_DOMAINS for name in list_folder(images / domain).images]
    return ListedImages(images, [_pacs_row(str(images / path), path) for path in paths], str(images))


def _pacs_row(where: str, path: str, number: str = "") -> Row:
    """Return the row of an image, whose path ends in domain, class and file. number: of the class, from 1."""
    classes = names_of("pacs").names
    domain, label, file = ("/", "/", *path.split("/"))[-3:]
    if domain not in _PACS_DOMAINS or label not in classes:
        raise DataError(
            f"{where}: {path!r} is not domain/class/file; the domains are {', '.join(_PACS_DOMAINS)}, the classes "
            f"{', '.join(classes)}"
        )
    if number not in ("", str(classes.index(label) + 1)):
        raise DataError(
            f"{where}: the class is {number!r} by its number, and {label!r} by its folder, which is "
            f"{classes.index(label) + 1}; take the authors' lists"
        )
    return Row(f"{domain}/{label}/{file}", label, metadata={"domain": domain})


def grocery_store(folder: Path, split: str) -> Source:
    """Read Grocery Store (Klasson et al. 2019): lines such as `test/Fruit/Banana/Banana_001.jpg, 6, 2`: fine, coarse.

    `classes.csv` has the names of the 81 fine classes, which are the labels, and of the coarse ones, which every
    example's metadata has as `coarse`.
    """
    table = folder / "classes.csv"
    fine, coarse = "Class Name (str)", "Coarse Class Name (str)"
    numbers = ("Class ID (int)", "Coarse Class ID (int)")
    classes = {
        tuple(row[name].strip() for name in numbers): (row[fine].strip(), row[coarse].strip())
        for row in _table(table, (fine, coarse, *numbers), delimiter=",")
    }
    if odd := {name for name, _ in classes.values()} ^ set(names_of("grocery_store").names):
        raise DataError(f"{table}: differs from the published classes in {sorted(odd)[0]!r}; fetch it again")
    file = folder / f"{split}.txt"
    rows = []
    for number, line in enumerate(read_lines(file), start=1):
        path, *given = (value.strip() for value in line.split(","))
        if tuple(given) not in classes:
            raise DataError(
                f"{file}, line {number}: {line!r}; expected a path and the numbers of its fine and coarse class, as "
                "classes.csv has them"
            )
        label, group = classes[tuple(given)]
        rows.append(Row(path, label, metadata={"coarse": group}))
    return ListedImages(folder, rows, str(file))


def _listed(
    images: Path, file: Path, row: Callable[[str], tuple[str, str]], *, skip: str | None = None
) -> ListedImages:
    return _joined(images, [file], row, skip=skip)


def _joined(
    images: Path, files: Iterable[Path], row: Callable[[str], tuple[str, str]], *, skip: str | None = None
) -> ListedImages:
    """Return the images of one or several lists; `row` gives the path and the label that a line stands for."""
    rows = []
    for file in files:
        for number, line in enumerate(read_lines(file), start=1):
            if skip is not None and line.startswith(skip):
                continue
            path, label = row(line)
            if not label:
                raise DataError(f"{file}, line {number}: {line!r} names no class; unpack the lists again")
            rows.append(Row(path, label))
    return ListedImages(images, rows, " and ".join(map(str, files)))


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


def _table(file: Path, needed: tuple[str, ...], delimiter: str = "\t") -> Iterator[dict[str, str]]:
    """Return the rows of a table."""
    reader = csv.DictReader(read_text(file).splitlines(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise DataError(
            f"{file}: has no column {missing[0]!r}; expected the table that the archive of the set holds"
        )
    for row in reader:
        yield {name: row[name] or "" for name in needed}
