"""Find a split of a published dataset under a root, in whichever form it lies there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych.errors import DataError
from diptych.evaluation.datasets.dataset import Dataset, dataset_named
from diptych.evaluation.datasets.packed import is_benchmark_shards, is_datasets_folder
from diptych.evaluation.datasets.set_classes import class_spellings, classes_of
from diptych.evaluation.datasets.split_folders import SPLITS, split_folders

ROOT_VARIABLE = "DIPTYCH_DATA"

Form = Literal["original", "folders", "shards", "datasets"]

_ALIASES = {"val": ("validation",)}


@dataclass(frozen=True)
class Found:
    """Where a split lies, and in which form. folder: a Parquet file if that is the root. split: its name there."""

    folder: Path
    form: Form
    split: str


def find_benchmark(name: str, root: str | Path, split: str) -> Found | None:
    """Return where a split lies in a folder that is called like its dataset, or None.

    The original layout comes first, then class folders, then shards, then a folder of `datasets`.
    """
    dataset = dataset_named(name)
    if not dataset.markers:
        return Found(Path(root), "original", split)
    originals = list(_original_folders(name, dataset, Path(root)))
    return _find(name, split, originals, _packed_folders(name, dataset, Path(root)))


def find_in_root(name: str, root: Path, split: str) -> Found | None:
    """Return where a split lies in the root itself, whatever the root is called, or None.

    The root may be a Parquet file, too: that of the split which published figures are about.

    Raises:
        DataError: the root is a file that cannot be this split.
    """
    if not root.is_file():
        return _find(name, split, [root], [root])
    tested = dataset_named(name).test_split
    if root.suffix.lower() != ".parquet":
        raise DataError(
            f"{root}: is a file; expected the folder of datasets, the folder of {name}, or a .parquet file"
        )
    if split != tested:
        raise DataError(
            f"{root}: one file is one split, and is read as {tested!r} of {name}; for {split!r}, name the folder that "
            f"holds {split}.parquet and {tested}.parquet"
        )
    return Found(root, "datasets", split)


def dataset_facts(name: str, root: Path) -> dict[str, Any]:
    """Return what is known of a published dataset, where it is under `root`, and where it would go, as JSON has it.

    Raises:
        SettingsError: there is no such dataset.
    """
    dataset = dataset_named(name)
    found = find_benchmark(name, root, dataset.test_split)
    return {
        "name": name,
        "title": dataset.title,
        "task": dataset.task,
        "metric": dataset.metric,
        "classes": dataset.classes,
        "train": dataset.train,
        "test": dataset.test,
        "splits": list(dataset.splits),
        "test_split": dataset.test_split,
        "train_split": dataset.train_split,
        "found": None if found is None else str(found.folder) if dataset.markers else dataset.origin,
        "form": None if found is None else found.form,
        "put_at": dataset.folders[0] if dataset.folders[0] != "." else dataset.layout,
        "layout": dataset.layout,
        "origin": dataset.origin,
        "shards": f"wds_{dataset.shards}" if dataset.shards else None,
        "checked": dataset.checked,
        "note": dataset.note,
    }


def _find(name: str, split: str, originals: Sequence[Path], packed: Iterable[Path]) -> Found | None:
    dataset = dataset_named(name)
    for folder in originals:
        if any(_matches(folder, marker) for marker in dataset.markers):
            return Found(folder, "original", split)
    # Others keep the data that the paper tests on as `test`, whatever the authors call it.
    spellings = [split, *_ALIASES.get(split, ()), *(["test"] if split == dataset.test_split else [])]
    if _has_class_folders(dataset, split):
        known = class_spellings(name)
        for folder in originals:
            for spelling in spellings:
                if split_folders(folder, spelling, known):
                    return Found(folder, "folders", spelling)
    for folder in packed:
        for spelling in spellings:
            if is_benchmark_shards(folder, spelling):
                return Found(folder, "shards", spelling)
            if is_datasets_folder(folder, spelling):
                return Found(folder, "datasets", spelling)
    return None


def _has_class_folders(dataset: Dataset, split: str) -> bool:
    """Return whether a split may lie in class folders: its images have one class each."""
    return dataset.task != "multi-label" and split in SPLITS


def _original_folders(name: str, dataset: Dataset, root: Path) -> Iterator[Path]:
    yield from (root / folder for folder in dataset.folders)
    yield root / name
    if root.absolute().name in (name, *(Path(folder).name for folder in dataset.folders)):
        yield root


def _packed_folders(name: str, dataset: Dataset, root: Path) -> Iterator[Path]:
    called = [f"wds_{known}" for known in (dataset.shards, name) if known] + [name]
    yield from (root / folder for folder in called)
    if root.absolute().name in called:
        yield root


def _matches(folder: Path, marker: str) -> bool:
    return (folder / marker).exists() or ("*" in marker and next(folder.glob(marker), None) is not None)


def where_to_put(name: str, root: Path, split: str) -> str:
    """Say what to do about a dataset that is not there."""
    dataset = dataset_named(name)
    home = root / dataset.folders[0]
    there = [folder for folder in _original_folders(name, dataset, root) if folder.is_dir()]
    labels = classes_of(name) if _has_class_folders(dataset, split) else None
    wanted = " or ".join(dataset.markers)
    if labels:
        wanted += f" and no folder {split!r} of class folders"
    if there:
        problem = f"{there[0]} is there, but has no {wanted} in it"
    elif root.is_dir():
        problem = f"{root} has no folder {dataset.folders[0]}"
    else:
        problem = f"{root}: no such folder"
    forms = [f"a folder of the datasets library: {root / name}"]
    if dataset.shards:
        forms.insert(
            0, f"tar shards of CLIP_benchmark: {root / f'wds_{dataset.shards}' / 'test' / '0.tar'} and so on"
        )
    if labels:
        word = labels.phrases[0][0].replace("/", " ")
        forms.insert(0, f"class folders: {root / name / split / word} and so on")
    note = f" {dataset.note}" if dataset.note else ""
    return (
        f"{name} ({dataset.title}), split {split}: not found: {problem}. Put it here: {home}, which holds "
        f"{dataset.layout}. It comes from {dataset.origin}. Other forms that are read: {'; '.join(forms)}. "
        f"Another root: --root or {ROOT_VARIABLE}. Its reader was compared with {dataset.checked}.{note}"
    )
