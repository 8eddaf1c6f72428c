"""The tasks that a suite may have, with their settings, and how a TOML file lists them."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from diptych import config
from diptych.config import nearest
from diptych.errors import SettingsError
from diptych.evaluation.datasets.benchmark import PREFIX, default_root, find_benchmark
from diptych.evaluation.datasets.dataset import all_datasets
from diptych.evaluation.probes.few_shot import SEEDS, SHOTS
from diptych.evaluation.suite.suite_files import NAME
from diptych.evaluation.zero_shot.answers import Headline
from diptych.evaluation.zero_shot.classification import LabelFrom

Metric = Headline | Literal["map11"]


@dataclass(frozen=True, kw_only=True)
class _ReadsTables:
    """How the tables among a task's data are read, as `open_source` takes it; found when not given."""

    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    delimiter: str | None = None  # one character between the columns of a text table
    image_root: str | None = None  # the folder that image paths are relative to

    def table_options(self) -> dict[str, str | None]:
        """Return these settings by their names."""
        return {field.name: getattr(self, field.name) for field in fields(_ReadsTables)}


@dataclass(frozen=True, kw_only=True)
class ZeroShot(_ReadsTables):
    """`evaluate_zero_shot` of one dataset; by the metric `map11`, `evaluate_multi_label`.

    What is not given is as the published dataset has it, for data such as `benchmark:cifar10`.
    """

    name: str
    task: Literal["zero-shot"] = "zero-shot"
    data: str  # as `open_source` takes it, or benchmark:NAME or benchmark:NAME:SPLIT
    labels: str | tuple[str, ...] | None = None  # a file, or names; every class of the data without it
    # What `templates_named` takes, or several; without it those of the labels, or what suits the model.
    templates: str | tuple[str, ...] | None = None
    label_from: LabelFrom | None = None  # "label" without it
    group_by: str | None = None  # a metadata field
    metric: Metric | None = None  # that comes first; "top1" without it


@dataclass(frozen=True, kw_only=True)
class Retrieval(_ReadsTables):
    """`evaluate_retrieval` of one dataset."""

    name: str
    task: Literal["retrieval"] = "retrieval"
    data: str  # as for `ZeroShot`
    truncate: bool = False  # cut captions that are too long


@dataclass(frozen=True, kw_only=True)
class LinearProbe(_ReadsTables):
    """`evaluate_linear_probe`: learns from `train`, is tested on `data`."""

    name: str
    task: Literal["linear-probe"] = "linear-probe"
    data: str  # as for `ZeroShot`
    train: str | None = None  # the same; the training split of a published dataset without it
    validation: str | None = None  # the same; a part of `train` without it
    label_from: LabelFrom | None = None  # "label" without it
    metric: Headline | None = None  # that comes first; "top1" without it
    seed: int = 0  # of the part that is validated with


@dataclass(frozen=True, kw_only=True)
class FewShot(_ReadsTables):
    """`evaluate_few_shot`: learns from a few images a class of `train`, is tested on `data`."""

    name: str
    task: Literal["few-shot"] = "few-shot"
    data: str  # as for `ZeroShot`
    train: str | None = None  # as for `LinearProbe`
    shots: tuple[int, ...] = SHOTS  # images a class
    seeds: int = SEEDS  # draws of them
    label_from: LabelFrom | None = None  # "label" without it
    metric: Headline | None = None  # "top1" without it


Task = ZeroShot | Retrieval | LinearProbe | FewShot

_KINDS: dict[str, type[Task]] = {
    "zero-shot": ZeroShot,
    "retrieval": Retrieval,
    "linear-probe": LinearProbe,
    "few-shot": FewShot,
}


def read_suite(file: str | Path) -> list[Task]:
    """The tasks of a TOML file: a table `[[tasks]]` each, with a `name`, a `task` and that task's settings.

    Raises:
        SettingsError: anything unknown, missing, of another type, or named twice.
    """
    values = config.read_toml(file)
    tables = values.pop("tasks", None)
    if values:
        raise SettingsError(
            f"{file}: unknown setting {next(iter(values))!r}; expected tables [[tasks]] alone"
        )
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{file}: no tasks in it; expected one or more tables [[tasks]]")
    tasks = [_task(table, f"{file} [[tasks]] {number}") for number, table in enumerate(tables, 1)]
    check_names(tasks, str(file))
    return tasks


def default_suite(root: Path | None = None) -> list[Task]:
    """The bundled sample, scikit-learn's digits where that is installed, and every published dataset that is found.

    root: as `open_benchmark` takes it; `default_root()` without it. The natural shifts have a command of their own.
    Probes take longer than all the rest, and are for who asks for them.
    """
    tasks: list[Task] = [
        ZeroShot(name="sample-zero-shot", data="sample:test", label_from="caption"),
        Retrieval(name="sample-retrieval", data="sample:test", truncate=True),
    ]
    if importlib.util.find_spec("sklearn") is not None:
        tasks.append(ZeroShot(name="digits", data=f"{PREFIX}digits"))
    place = default_root() if root is None else root
    for name, dataset in all_datasets().items():
        on_disk = dataset.markers and find_benchmark(name, place, dataset.test_split) is not None
        if not on_disk or dataset.task == "natural-shift":
            continue
        if dataset.task == "retrieval":
            tasks.append(Retrieval(name=name, data=f"{PREFIX}{name}", truncate=True))
        else:
            tasks.append(ZeroShot(name=name, data=f"{PREFIX}{name}", group_by=dataset.group_by))
    return tasks


def check_names(tasks: Sequence[Task], where: str) -> None:
    """Raise SettingsError where a task's name cannot be a file's, or two have one name."""
    seen: set[str] = set()
    for task in tasks:
        if not NAME.fullmatch(task.name):
            raise SettingsError(
                f"{where}: the task's name {task.name!r} is to name a file; expected letters, digits, - and _"
            )
        if task.name.lower() in seen:  # some systems have one file for both
            raise SettingsError(f"{where}: two tasks are called {task.name!r}; each needs a name of its own")
        seen.add(task.name.lower())


def _task(table: dict[str, Any], where: str) -> Task:
    kind = table.get("task")
    if kind not in _KINDS:
        known = ", ".join(_KINDS) if not isinstance(kind, str) else nearest(kind, _KINDS)
        raise SettingsError(f"{where}: task {kind!r}: {known}")
    return config.build(_KINDS[kind], table, where)
