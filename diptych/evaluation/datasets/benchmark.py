"""Open one of the published datasets by its name, from wherever and in whichever form it lies on the disk."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.config import nearest
from diptych.data.sources.opening import Source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.datasets.dataset import Dataset, Metric, Task, dataset_named
from diptych.evaluation.datasets.packed import (
    is_benchmark_shards,
    is_datasets_folder,
    open_benchmark_shards,
    open_datasets_folder,
)
from diptych.evaluation.datasets.set_files import names_of
from diptych.evaluation.robustness.natural_shift import SHIFTS, class_map
from diptych.evaluation.tasks import PUBLISHED
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.prompts import TEMPLATES

ROOT_VARIABLE = "DIPTYCH_DATA"

Form = Literal["original", "shards", "datasets"]

_ALIASES = {"val": ("validation",)}


@dataclass(frozen=True)
class Benchmark:
    """One split of a dataset, with what its published measurement takes.

    labels: the classes by what the source calls them, with their words; None for retrieval, for rules of their own,
    and where the source's own names are the words. templates: the published ones; None where none are. metric: that
    of the paper's table. label_from: where an example's class stands.
    """

    name: str
    title: str
    split: str
    source: Source
    labels: LabelSet | None
    templates: tuple[str, ...] | None
    metric: Metric
    task: Task
    label_from: Literal["label", "caption"]


@dataclass(frozen=True)
class Found:
    """Where a split lies, and in which form. split: its name there."""

    folder: Path
    form: Form
    split: str


def open_benchmark(name: str, root: str | Path, split: str | None = None) -> Benchmark:
    """Open one split of a published dataset.

    root: a folder that holds the dataset's folder, or that folder itself. split: the one that published figures are
    about where not given.

    Raises:
        SettingsError: there is no such dataset, or it has no such split.
        DataError: it is not there, which the message answers with what to put where; or it is damaged.
        MissingExtraError: its files need a package that is not installed.
    """
    dataset = dataset_named(name)
    wanted = split or dataset.test_split
    if wanted not in dataset.splits:
        raise SettingsError(f"{name}: has no split {wanted!r}; {nearest(wanted, dataset.splits)}")
    found = find_benchmark(name, root, wanted)
    if found is None:
        raise DataError(_put_it_here(name, dataset, Path(root), wanted))
    labels = _labels(name, dataset)
    templates = labels.templates if labels else None
    if isinstance(dataset.templates, str):
        templates = TEMPLATES[dataset.templates]
    if found.form == "original":
        source = dataset.read(found.folder, wanted)
    else:
        if found.form == "shards":
            packed = open_benchmark_shards(found.folder, found.split)
            labels, templates = packed.labels, packed.templates or templates
        else:
            packed = open_datasets_folder(found.folder, found.split, labels, dataset.label_column)
        source = packed.source
    return Benchmark(
        name=name,
        title=dataset.title,
        split=wanted,
        source=source,
        labels=labels,
        templates=templates,
        metric=dataset.metric,
        task=dataset.task,
        label_from=dataset.label_from,
    )


def benchmark_from(data: str, root: str | Path | None = None) -> Benchmark | None:
    """Return what `--data` names if it has the form `benchmark:NAME` or `benchmark:NAME:SPLIT`, else None.

    root: as `open_benchmark` takes it; `default_root()` where not given. Raises what `open_benchmark` raises.
    """
    if not data.startswith(PUBLISHED):
        return None
    name, _, split = data.removeprefix(PUBLISHED).partition(":")
    return open_benchmark(name, default_root() if root is None else root, split or None)


def default_root() -> Path:
    """Return the folder of all datasets where none is given: the environment's DIPTYCH_DATA, else `data` here."""
    return Path(os.environ.get(ROOT_VARIABLE) or "data")


def find_benchmark(name: str, root: str | Path, split: str) -> Found | None:
    """Return where a split lies, or None. The original layout comes first, then shards, then a folder of `datasets`."""
    dataset = dataset_named(name)
    if not dataset.markers:
        return Found(Path(root), "original", split)
    for folder in _original_folders(name, dataset, Path(root)):
        if any(_matches(folder, marker) for marker in dataset.markers):
            return Found(folder, "original", split)
    # Others keep the data that the paper tests on as `test`, whatever the authors call it.
    spellings = [split, *_ALIASES.get(split, ()), *(["test"] if split == dataset.test_split else [])]
    for folder in _packed_folders(name, dataset, Path(root)):
        for spelling in spellings:
            if is_benchmark_shards(folder, spelling):
                return Found(folder, "shards", spelling)
            if is_datasets_folder(folder, spelling):
                return Found(folder, "datasets", spelling)
    return None


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


def _labels(name: str, dataset: Dataset) -> LabelSet | None:
    if dataset.labels is None and dataset.labels_of is None:
        return None
    labels = names_of(dataset.labels_of or name)
    if name not in SHIFTS or SHIFTS[name].table is None:
        return labels
    # Some of ImageNet's classes: a classifier of these alone measures the set correctly.
    phrases = dict(zip(labels.names, labels.phrases, strict=True))
    names = class_map(name).names
    return LabelSet(names, tuple(phrases[wnid] for wnid in names))


def _put_it_here(name: str, dataset: Dataset, root: Path, split: str) -> str:
    """Say what to do about a dataset that is not there."""
    home = root / dataset.folders[0]
    there = [folder for folder in _original_folders(name, dataset, root) if folder.is_dir()]
    if there:
        wanted = " or ".join(dataset.markers)
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
    note = f" {dataset.note}" if dataset.note else ""
    return (
        f"{name} ({dataset.title}), split {split}: not found: {problem}. Put it here: {home}, which holds "
        f"{dataset.layout}. It comes from {dataset.origin}. Other forms that are read: {'; '.join(forms)}. "
        f"Another root: --root or {ROOT_VARIABLE}. Its reader was compared with {dataset.checked}.{note}"
    )
