"""Open one of the published datasets by its name, from wherever and in whichever form it lies on the disk."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.config import nearest
from diptych.data.left_out import LeftOut, all_left_out
from diptych.data.sources.folder import FolderSource
from diptych.data.sources.opening import Source
from diptych.errors import DataError, SettingsError
from diptych.evaluation.datasets.dataset import Dataset, Metric, Task, dataset_named
from diptych.evaluation.datasets.finding import (
    ROOT_VARIABLE,
    Found,
    find_benchmark,
    find_in_root,
    where_to_put,
)
from diptych.evaluation.datasets.listed_images import Relabelled
from diptych.evaluation.datasets.packed import Packed, open_benchmark_shards, open_datasets_folder
from diptych.evaluation.datasets.set_classes import class_spellings, classes_of
from diptych.evaluation.datasets.split_folders import open_split_folder, remark_on_absent, split_folders
from diptych.evaluation.tasks import PUBLISHED
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.prompts import TEMPLATES


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


def open_benchmark(name: str, root: str | Path, split: str | None = None) -> Benchmark:
    """Open one split of a published dataset.

    root: a folder that holds the dataset's folder, or that folder itself, or a Parquet file. split: the one that
    published figures are about where not given.

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
    if found is not None:
        read = _open(name, dataset, found)
    else:
        found = find_in_root(name, Path(root), wanted)
        if found is None:
            raise DataError(where_to_put(name, Path(root), wanted))
        try:
            read = _open(name, dataset, found)
        except DataError as error:
            raise DataError(
                f"{error} ({root} was read as {name}, because it holds no folder of that name)"
            ) from None
    return Benchmark(
        name=name,
        title=dataset.title,
        split=wanted,
        source=read.source,
        labels=read.labels,
        templates=read.templates,
        metric=dataset.metric,
        task=dataset.task,
        label_from=dataset.label_from,
    )


def _open(name: str, dataset: Dataset, found: Found) -> Packed:
    labels = classes_of(name)
    source: Source
    templates = labels.templates if labels else None
    if isinstance(dataset.templates, str):
        templates = TEMPLATES[dataset.templates]
    match found.form:
        case "shards":
            shards = open_benchmark_shards(found.folder, found.split)
            return Packed(shards.source, shards.labels, shards.templates or templates)
        case "datasets":
            source = open_datasets_folder(
                found.folder, found.split, class_spellings(name), dataset.label_column
            )
        case "folders" if labels:
            spellings = class_spellings(name)
            places = split_folders(found.folder, found.split, spellings)
            source = open_split_folder(places, dataset.title, labels, spellings)
            if "val" not in dataset.splits and (further := split_folders(found.folder, "val", spellings)):
                _add_remark(
                    source,
                    f"{further[0]}: {dataset.title} has no validation part, so this copy was split anew; its figures "
                    "may not be comparable with published ones",
                )
        case _:
            source = dataset.read(found.folder, found.split)
            if isinstance(source, FolderSource) and labels and (remark := remark_on_absent(source, labels)):
                _add_remark(source, remark)
    return Packed(source, labels, templates)


def _add_remark(source: FolderSource | Relabelled, remark: str) -> None:
    source.left_out = all_left_out([source.left_out, LeftOut([remark])])


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
