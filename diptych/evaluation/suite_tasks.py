"""The tasks that a suite may have: the settings of each, and how its data are opened and it is measured."""

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
from diptych.evaluation.labels import LabelSet, read_labels
from diptych.evaluation.prompts import check_templates, templates_named
from diptych.evaluation.report import Report
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.suite_files import NAME
from diptych.evaluation.zero_shot import Headline, LabelFrom, evaluate_zero_shot
from diptych.models.clip import CLIP


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """`evaluate_zero_shot` of one dataset."""

    name: str
    task: Literal["zero-shot"] = "zero-shot"
    data: str  # as `open_source` takes it
    labels: str | tuple[str, ...] | None = None  # a file, or names; every class of the data without it
    # The name of a set, one template, or several; without it those of the labels, or what suits the model.
    templates: str | tuple[str, ...] | None = None
    label_from: LabelFrom = "label"
    group_by: str | None = None  # a metadata field
    headline: Headline = "top1"


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """`evaluate_retrieval` of one dataset."""

    name: str
    task: Literal["retrieval"] = "retrieval"
    data: str  # as `open_source` takes it
    truncate: bool = False  # cut captions that are too long


Task = ZeroShot | Retrieval

_KINDS: dict[str, type[Task]] = {"zero-shot": ZeroShot, "retrieval": Retrieval}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is measured.

    templates: what goes around a label where neither task nor labels say. precision: as it was loaded.
    """

    model: CLIP
    preprocess: Preprocess
    name: str
    fingerprint: str
    precision: str
    templates: tuple[str, ...]
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


def default_suite() -> list[Task]:
    """What can be measured with the bundled data alone."""
    return [
        ZeroShot(name="sample-zero-shot", data="sample:test", label_from="caption"),
        Retrieval(name="sample-retrieval", data="sample:test", truncate=True),
    ]


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
    source = open_source(task.data)
    labels = _labels(task.labels)
    templates = _templates(task.templates, labels, subject, f"the task {task.name!r}")
    return Job(
        sources=(source,),
        words={"labels": None if labels is None else plain(labels), "templates": list(templates)},
        measure=lambda progress: evaluate_zero_shot(
            subject.model,
            subject.preprocess,
            source,
            model_name=subject.name,
            labels=labels,
            templates=templates,
            label_from=task.label_from,
            group_by=task.group_by,
            headline=task.headline,
            batch_size=subject.batch_size,
            progress=progress,
        ),
    )


def _retrieval(task: Retrieval, subject: Subject) -> Job:
    source = open_source(task.data)
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


def _labels(given: str | tuple[str, ...] | None) -> LabelSet | None:
    if isinstance(given, str):
        return read_labels(given)
    return None if given is None else LabelSet.of(given)


def _templates(
    given: str | tuple[str, ...] | None, labels: LabelSet | None, subject: Subject, where: str
) -> tuple[str, ...]:
    if isinstance(given, str):
        return templates_named(given)
    if given is not None:
        return check_templates(given, where)
    return (None if labels is None else labels.templates) or subject.templates
