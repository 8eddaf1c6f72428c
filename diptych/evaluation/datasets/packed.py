"""Two forms that any of the sets may have: tar shards of CLIP_benchmark, and folders of the `datasets` library."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.sources.opening import Source, is_saved_dataset, open_source
from diptych.data.sources.shards import ShardSource
from diptych.errors import DataError
from diptych.evaluation.datasets.listed_images import Relabelled, read_lines
from diptych.evaluation.datasets.set_classes import plain_spelling
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.prompts import check_templates


@dataclass(frozen=True)
class Packed:
    """A source, its classes and its templates; None for what is not known."""

    source: Source
    labels: LabelSet | None
    templates: tuple[str, ...] | None


def is_benchmark_shards(folder: Path, split: str) -> bool:
    """Whether a folder holds a split in the layout of `clip-benchmark/wds_*`."""
    return (folder / split / "nshards.txt").is_file() or (folder / split / "0.tar").is_file()


def open_benchmark_shards(folder: Path, split: str) -> Packed:
    """Open a split of `clip-benchmark/wds_*`: `test/0.tar` and so on, and text files of classes and templates.

    A label is a number, the line of `classnames.txt` counted from 0. Those are CLIP_benchmark's names and order, which
    need not be the paper's; templates write `{c}` for the name.

    Raises:
        DataError: a shard that `nshards.txt` counts is missing, there are no class names, or the labels are several
            an image (`.npy` files), which are not read.
    """
    counted = folder / split / "nshards.txt"
    if counted.is_file():
        text = next(read_lines(counted), "")
        if not text.isdigit() or text == "0":
            raise DataError(f"{counted}: holds {text!r}; expected how many shards there are")
        shards = [folder / split / f"{number}.tar" for number in range(int(text))]
    else:
        shards = sorted((folder / split).glob("*.tar"), key=lambda path: (len(path.name), path.name))
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard}: no such shard, though {counted} says {len(shards):,}; fetch it again")
    kind = folder / "dataset_type.txt"
    word = next(read_lines(kind), "") if kind.is_file() else "classification"
    source = ShardSource(shards, name=f"{folder} ({split})")
    if word == "retrieval":
        return Packed(source, None, None)
    if word != "classification":
        raise DataError(
            f"{kind}: says {word!r}; the labels of such shards are .npy files, which are not read: use the original "
            "layout of the set"
        )
    names = list(read_lines(folder / "classnames.txt"))
    labels = LabelSet(tuple(str(number) for number in range(len(names))), tuple((name,) for name in names))
    return Packed(source, labels, _templates(folder / "zeroshot_classification_templates.txt"))


def is_datasets_folder(folder: Path, split: str) -> bool:
    """Whether a folder was saved by `datasets`, or holds the Parquet files of one of its repositories."""
    return is_saved_dataset(folder) or is_saved_dataset(folder / split) or bool(_parquet(folder, split))


def open_datasets_folder(
    folder: Path, split: str, spellings: Mapping[str, str], column: str | None
) -> Source:
    """Open a split that `save_to_disk` wrote, or that was fetched as Parquet files (`data/test-*.parquet`).

    folder: or one Parquet file. spellings: the ways to write a class, as `class_spellings` returns them; a label that
    is none of them stays as it is. column: the label's, where it has no usual name.
    """
    place: Any = _parquet(folder, split) or (folder / split if is_saved_dataset(folder / split) else folder)
    source = open_source(place, label_column=column)
    return Relabelled(source, spellings, plain_spelling) if spellings else source


def _parquet(folder: Path, split: str) -> Sequence[Path]:
    """Return the Parquet files of a split, as repositories of `datasets` name them: here, or in one folder below."""
    found: dict[Path, list[Path]] = {}
    names = (f"{split}[-.]*parquet", f"{split}/*.parquet")
    for path in sorted(path for name in names for below in ("", "*/") for path in folder.glob(below + name)):
        found.setdefault(path.parent, []).append(path)
    if len(found) > 1:
        places = ", ".join(str(place) for place in found)
        raise DataError(
            f"{folder}: Parquet files of {split!r} lie in several folders ({places}); keep one of them"
        )
    files = next(iter(found.values()), [])
    if len(files) > 1 and not all(re.match(rf"({split}[-.])?\d", path.name) for path in files):
        listed = ", ".join(path.name for path in files)
        raise DataError(
            f"{folder}: several Parquet files of {split!r} that are not numbered parts of one ({listed}); "
            "name the one to read as the root (--root)"
        )
    return files


def _templates(file: Path) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    return check_templates([line.replace("{c}", "{}") for line in read_lines(file)], str(file))
