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


def _table(file: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Return the rows of a table whose columns are separated by tabs."""
    reader = csv.DictReader(read_text(file).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise DataError(
            f"{file}: has no column {missing[0]!r}; expected the table that Birdsnap's archive holds"
        )
    yield from reader
