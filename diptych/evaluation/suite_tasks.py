"""The tasks that a suite may have: the settings of each, and how its data are opened and it is measured."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych import config
from diptych.config import nearest, plain
from diptych.data.sources import Source, open_source
from diptych.data.transforms import Preprocess
from diptych.embed import Progress
from diptych.errors import SettingsError
from diptych.evaluation.datasets.benchmark import (
    DATASETS,
    PREFIX,
    Benchmark,
    benchmark_from,
    default_root,
    find_benchmark,
)
from diptych.evaluation.labels import LabelSet, read_labels
from diptych.evaluation.multi_label import evaluate_multi_label
from diptych.evaluation.prompts import check_templates, templates_named
from diptych.evaluation.report import Report
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.suite_files import NAME
from diptych.evaluation.zero_shot import (
    BuildClassifier,
    Headline,
    LabelFrom,
    classifier,
    evaluate_zero_shot,
)
from diptych.models.clip import CLIP

Metric = Headline | Literal["map11"]


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
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
class Retrieval:
    """`evaluate_retrieval` of one dataset."""

    name: str
    task: Literal["retrieval"] = "retrieval"
    data: str  # as for `ZeroShot`
    truncate: bool = False  # cut captions that are too long


Task = ZeroShot | Retrieval

_KINDS: dict[str, type[Task]] = {"zero-shot": ZeroShot, "retrieval": Retrieval}

# Metadata by whose values a dataset is best reported as well.
_GROUPS = {"vendor_shift": "vendor"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is measured.

    templates: what goes around a label where neither task nor labels say. precision: as it was loaded.
    build: makes its zero-shot classifiers. root: the folder of published datasets; `default_root()` without it.
    """

    model: CLIP
    preprocess: Preprocess
    name: str
    fingerprint: str
    precision: str
    templates: tuple[str, ...]
    build: BuildClassifier = classifier
    root: Path | None = None
    batch_size: int = 64


@dataclass(frozen=True)
class Job:
    """A task whose data are open.

    sources: what is measured on, first of all the source that the outcomes' positions are rows of.
    words: what the result depends on beside the data and the settings.
    """

    sources: tuple[Source, ...]
    words: Mapping[str, Any]
    measure: Callable[[Progress], Report]


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
    """
    tasks: list[Task] = [
        ZeroShot(name="sample-zero-shot", data="sample:test", label_from="caption"),
        Retrieval(name="sample-retrieval", data="sample:test", truncate=True),
    ]
    if importlib.util.find_spec("sklearn") is not None:
        tasks.append(ZeroShot(name="digits", data=f"{PREFIX}digits"))
    place = default_root() if root is None else root
    for name, dataset in DATASETS.items():
        on_disk = dataset.markers and find_benchmark(name, place, dataset.test_split) is not None
        if not on_disk or dataset.task == "natural-shift":
            continue
        if dataset.task == "retrieval":
            tasks.append(Retrieval(name=name, data=f"{PREFIX}{name}", truncate=True))
        else:
            tasks.append(ZeroShot(name=name, data=f"{PREFIX}{name}", group_by=_GROUPS.get(name)))
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


def prepare(task: Task, subject: Subject) -> Job:
    """Open a task's data and read its labels. Raises DataError and SettingsError where that fails."""
    return _PREPARE[task.task](task, subject)


def _task(table: dict[str, Any], where: str) -> Task:
    kind = table.get("task")
    if kind not in _KINDS:
        known = ", ".join(_KINDS) if not isinstance(kind, str) else nearest(kind, _KINDS)
        raise SettingsError(f"{where}: task {kind!r}: {known}")
    return config.build(_KINDS[kind], table, where)


def _zero_shot(task: ZeroShot, subject: Subject) -> Job:
    source, known = _open(task.data, subject)
    own = _labels(task.labels)
    labels = own or (known.labels if known else None)
    given = _templates(task.templates, f"the task {task.name!r}") or (own and own.templates)
    words = given or (known.templates if known else None) or subject.templates
    metric = task.metric or _metric(task, known)
    if metric == "map11" and (task.group_by is not None or task.label_from is not None):
        raise SettingsError(
            f"the task {task.name!r}: map11 takes the classes from the metadata; leave out group_by and label_from"
        )

    def measure(progress: Progress) -> Report:
        if metric == "map11":
            return evaluate_multi_label(
                subject.model,
                subject.preprocess,
                source,
                model_name=subject.name,
                labels=labels,
                templates=words,
                build=subject.build,
                batch_size=subject.batch_size,
                progress=progress,
            )
        return evaluate_zero_shot(
            subject.model,
            subject.preprocess,
            source,
            model_name=subject.name,
            labels=labels,
            templates=words,
            label_from=task.label_from or (known.label_from if known else "label"),
            group_by=task.group_by,
            headline=metric,
            build=subject.build,
            batch_size=subject.batch_size,
            progress=progress,
        )

    return Job((source,), {"labels": plain(labels), "templates": list(words)}, measure)


def _retrieval(task: Retrieval, subject: Subject) -> Job:
    source, _ = _open(task.data, subject)
    return Job(
        sources=(source,),
        words={},
        measure=lambda progress: evaluate_retrieval(
            subject.model,
            subject.preprocess,
            source,
            model_name=subject.name,
            truncate=task.truncate,
            batch_size=subject.batch_size,
            progress=progress,
        ),
    )


_PREPARE: dict[str, Callable[[Any, Subject], Job]] = {"zero-shot": _zero_shot, "retrieval": _retrieval}


def _open(data: str, subject: Subject) -> tuple[Source, Benchmark | None]:
    known = benchmark_from(data, subject.root)
    return (open_source(data), None) if known is None else (known.source, known)


def _labels(given: str | tuple[str, ...] | None) -> LabelSet | None:
    if isinstance(given, str):
        return read_labels(given)
    return None if given is None else LabelSet.of(given)


def _templates(given: str | tuple[str, ...] | None, where: str) -> tuple[str, ...] | None:
    if isinstance(given, str):
        return templates_named(given)
    return None if given is None else check_templates(given, where)


def _metric(task: ZeroShot, known: Benchmark | None) -> Metric:
    if known is None:
        return "top1"
    match known.metric:
        case "pm" | "image_to_text_r1":
            raise SettingsError(
                f"the task {task.name!r}: {known.title} is not measured by zero-shot classification of its images; "
                "see: diptych evaluate --help"
            )
        case metric:
            return metric
