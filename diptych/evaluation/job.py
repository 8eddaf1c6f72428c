"""An evaluation task in two steps: its data are opened once, then any number of models are measured on them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from diptych.data.left_out import all_left_out, left_out_of
from diptych.data.sources.opening import Source, open_source
from diptych.data.subsets.selection import select_rows
from diptych.embed.encode import Preprocessing, Progress
from diptych.errors import SettingsError, UsageError
from diptych.evaluation.datasets.benchmark import Benchmark, benchmark_from
from diptych.evaluation.task_report import Report
from diptych.evaluation.tasks import TASKS, LabelFrom, TaskSettings, read_task
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import BuildClassifier, classifier
from diptych.evaluation.zero_shot.prompts import TEMPLATES, suitable_templates
from diptych.models.image_model import ImageModel
from diptych.pretrained import name_of


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is measured. name: for the report. build: makes its zero-shot classifiers."""

    model: ImageModel
    preprocess: Preprocessing
    name: str
    build: BuildClassifier = classifier
    batch_size: int = 64


class TaskData(NamedTuple):
    """An opened source. known: what is published about it; None for other data."""

    source: Source
    known: Benchmark | None = None

    @property
    def label_from(self) -> LabelFrom:
        """Return where an image's class stands, unless the task says."""
        return self.known.label_from if self.known else "label"

    @property
    def labels(self) -> LabelSet | None:
        """Return the published classes."""
        return self.known.labels if self.known else None


OpenData = Callable[[str, TaskSettings], TaskData]  # opens a place in the way that a task's settings say


def open_data(place: str, task: TaskSettings, *, root: Path | None = None) -> TaskData:
    """Open what a task names as data: whatever `open_source` takes, or a published dataset.

    root: the folder of published datasets; `default_root()` when not given.

    Raises:
        DataError, SettingsError: as `open_source` and `open_benchmark` do.
        UsageError: columns are given for a published dataset.
    """
    known = benchmark_from(place, root)
    options = task.table_options()
    if known is None:
        return TaskData(open_source(place, **options))
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise UsageError(f"the task {task.name!r}: {place} has its own columns; leave out {given}")
    return TaskData(known.source, known)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a task is prepared with. templates: what goes around a label where neither task nor labels say.

    cut: takes the part of the tested data that is to be measured; all of it when not given.
    """

    open: OpenData = open_data
    templates: tuple[str, ...] = TEMPLATES["plain"]
    cut: Callable[[Source], Source] = lambda source: source

    def tested(self, task: TaskSettings) -> TaskData:
        """Open the data that a task is measured on: the rows of `data` that `where` keeps."""
        found = self.open(task.data, task)
        return found._replace(source=self.cut(select_rows(found.source, task.where or {})))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task whose data are open.

    sources: what is measured on, first of all the source that the outcomes' positions are rows of. measure: gets the
    model; under torchrun all processes call it together. words: what the result depends on beside the data and the
    settings. phrases: how people call the classes that the data call otherwise. fits: the most steps that the progress
    counts beside the images.
    """

    sources: tuple[Source, ...]
    measure: Callable[[Subject, Progress | None], Report]
    words: Mapping[str, Any] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)
    fits: int = 0

    @property
    def images(self) -> int:
        """Return the number of rows of all sources."""
        return sum(map(len, self.sources))

    def report(self, subject: Subject, progress: Progress | None = None) -> Report:
        """Measure a model; the report also has what the sources left out when they were opened."""
        report = self.measure(subject, progress)
        return replace(report, unused=all_left_out(map(left_out_of, self.sources)))


def prepare(task: TaskSettings, context: Context) -> Job:
    """Open a task's data and read its labels.

    Raises:
        DataError, SettingsError: as the data's readers do.
        UsageError: settings of the task that do not go together, or one that is missing.
    """
    module, _, function = TASKS[task.task].job.partition(":")
    job: Job = getattr(import_module(module), function)(task, context)
    return job


def evaluate(
    task: str,
    model: ImageModel,
    preprocess: Preprocessing,
    data: str | os.PathLike[str] | Source,
    *,
    root: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Measure a model at a task, with chance and a 95 % interval beside each metric.

    Under torchrun every process calls this, and the processes share the images.

    Args:
        task: "zero-shot", "retrieval", "linear-probe", "few-shot", "labels" or "word-order".
        model: a model of `load`.
        preprocess: what `load` returned beside it.
        data: a source, what `open_source` takes for it, or `benchmark:NAME` or `benchmark:NAME:SPLIT` for a published
            dataset, which brings its own labels, templates and metric.
        root: folder of the published datasets; the environment variable `DIPTYCH_DATA`, or else `data`, when not given.
        batch_size: images that the model embeds at once.
        progress: gets the number of images done since the last call.
        options: settings of the task, by the names that they have in a suite (docs/evaluation.md lists them), such as
            `labels`, `templates`, `label_from`, `metric` and `group_by` of "zero-shot", `train` and `shots` of
            "few-shot", or `where` and `caption_column` of every task. `train` and `validation` may be sources.

    Returns:
        The report: `scores` (`count`, and by metric `metrics`, `confidence` and `chance`, fractions in 0..1), `groups`,
        `skipped`, `remarks`, `outcomes` (of each image), `to_json()` (what `--json` prints) and `table()` (for a
        terminal).

    Raises:
        SettingsError: the task or an option is unknown, or a value cannot be used.
        UsageError: options that do not go together, or one that is missing.
        DataError: the data cannot be read, or lack what the task needs.
        TextError: a caption is too long for the model, and `truncate` is off.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> report = diptych.evaluate("zero-shot", model, preprocess, "images", label_from="caption")
        >>> report.scores.count, report.scores.metrics["top1"]
        (3, 1.0)
    """
    opened: dict[str, Source] = {}

    def written(value: Any) -> Any:
        """Return a value as a suite's file would have it; sources stand there by their names."""
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if not hasattr(value, "fingerprint"):
            return value
        if opened.setdefault(value.name, value) is not value:
            raise SettingsError(f"{value.name}: two sources of that name; open one of them by another path")
        return value.name

    def open_(place: str, settings: TaskSettings) -> TaskData:
        if place in opened:
            return TaskData(opened[place])
        return open_data(place, settings, root=None if root is None else Path(root))

    given = {key: written(value) for key, value in {"data": data, **options}.items()}
    settings = read_task({"name": task, "task": task, **given}, "evaluate")
    name = name_of(model) or "unnamed"
    subject = Subject(model=model, preprocess=preprocess, name=name, batch_size=batch_size)
    return prepare(settings, Context(open=open_, templates=suitable_templates(model))).report(
        subject, progress
    )
