"""How a suite's task is done: its data opened, its words read, its function called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import Progress
from diptych.errors import SettingsError
from diptych.evaluation.datasets.benchmark import PREFIX, Benchmark, benchmark_from
from diptych.evaluation.datasets.dataset import dataset_named
from diptych.evaluation.probes.few_shot import evaluate_few_shot
from diptych.evaluation.probes.linear_probe import evaluate_linear_probe
from diptych.evaluation.probes.probe_data import LabelledFeatures, labelled_features
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.suite.suite_tasks import FewShot, LinearProbe, Metric, Retrieval, Task, ZeroShot
from diptych.evaluation.task_report import Report
from diptych.evaluation.zero_shot.answers import Headline
from diptych.evaluation.zero_shot.class_labels import LabelSet, read_labels
from diptych.evaluation.zero_shot.classification import (
    BuildClassifier,
    LabelFrom,
    classifier,
    evaluate_zero_shot,
)
from diptych.evaluation.zero_shot.multi_label import evaluate_multi_label
from diptych.evaluation.zero_shot.prompts import check_templates, templates_named
from diptych.models.clip import CLIP


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
    words: what the result depends on beside the data and the settings. phrases: as `Result` has them.
    """

    sources: tuple[Source, ...]
    words: Mapping[str, Any]
    measure: Callable[[Progress], Report]
    phrases: Mapping[str, str] = field(default_factory=dict)


def prepare(task: Task, subject: Subject) -> Job:
    """Open a task's data and read its labels. Raises DataError and SettingsError where that fails."""
    return _PREPARE[task.task](task, subject)


def _zero_shot(task: ZeroShot, subject: Subject) -> Job:
    source, known = _open(task.data, task, subject)
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

    return Job((source,), {"labels": plain(labels), "templates": list(words)}, measure, _phrases(labels))


def _retrieval(task: Retrieval, subject: Subject) -> Job:
    source, _ = _open(task.data, task, subject)
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


def _linear_probe(task: LinearProbe, subject: Subject) -> Job:
    test, known = _open(task.data, task, subject)
    train = _training_data(task, subject)
    validation = None if task.validation is None else _open(task.validation, task, subject)[0]
    features = _features(subject, task.label_from or (known.label_from if known else "label"))

    def measure(progress: Progress) -> Report:
        learned = features(train, None, progress)
        classes = LabelSet.of(learned.classes)
        return evaluate_linear_probe(
            learned,
            features(test, classes, progress),
            None if validation is None else features(validation, classes, progress),
            model_name=subject.name,
            headline=_learned_metric(task, known),
            seed=task.seed,
            device=subject.model.logit_scale.device,
        )

    sources = (test, train) if validation is None else (test, train, validation)
    return Job(sources, {}, measure, _phrases(known.labels if known else None))


def _few_shot(task: FewShot, subject: Subject) -> Job:
    test, known = _open(task.data, task, subject)
    train = _training_data(task, subject)
    features = _features(subject, task.label_from or (known.label_from if known else "label"))

    def measure(progress: Progress) -> Report:
        learned = features(train, None, progress)
        return evaluate_few_shot(
            learned,
            features(test, LabelSet.of(learned.classes), progress),
            model_name=subject.name,
            shots=task.shots,
            seeds=task.seeds,
            headline=_learned_metric(task, known),
            device=subject.model.logit_scale.device,
        )

    return Job((test, train), {}, measure, _phrases(known.labels if known else None))


_PREPARE: dict[str, Callable[[Any, Subject], Job]] = {
    "zero-shot": _zero_shot,
    "retrieval": _retrieval,
    "linear-probe": _linear_probe,
    "few-shot": _few_shot,
}


def _features(
    subject: Subject, label_from: LabelFrom
) -> Callable[[Source, LabelSet | None, Progress], LabelledFeatures]:
    """What computes the features of a source, with the given classes or its own."""

    def compute(source: Source, labels: LabelSet | None, progress: Progress) -> LabelledFeatures:
        return labelled_features(
            subject.model,
            subject.preprocess,
            source,
            labels=labels,
            label_from=label_from,
            batch_size=subject.batch_size,
            progress=progress,
        )

    return compute


def _training_data(task: LinearProbe | FewShot, subject: Subject) -> Source:
    if task.train is not None:
        return _open(task.train, task, subject)[0]
    name = task.data.removeprefix(PREFIX).partition(":")[0]
    split = dataset_named(name).train_split if task.data.startswith(PREFIX) else None
    if split is None:
        raise SettingsError(
            f"the task {task.name!r}: {task.data} says nothing of what to learn from; expected train = ..."
        )
    return _open(f"{PREFIX}{name}:{split}", task, subject)[0]


def _open(data: str, task: Task, subject: Subject) -> tuple[Source, Benchmark | None]:
    known = benchmark_from(data, subject.root)
    options = task.table_options()
    if known is None:
        return open_source(data, **options), None
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise SettingsError(f"the task {task.name!r}: {data} has its own columns; leave out {given}")
    return known.source, known


def _labels(given: str | tuple[str, ...] | None) -> LabelSet | None:
    if isinstance(given, str):
        return read_labels(given)
    return None if given is None else LabelSet.of(given)


def _phrases(labels: LabelSet | None) -> dict[str, str]:
    """The first phrase of each class that has another one than its name."""
    if labels is None:
        return {}
    first = {name: phrases[0] for name, phrases in zip(labels.names, labels.phrases, strict=True)}
    return {name: phrase for name, phrase in first.items() if phrase != name}


def _templates(given: str | tuple[str, ...] | None, where: str) -> tuple[str, ...] | None:
    if isinstance(given, str):
        return templates_named(given)
    return None if given is None else check_templates(given, where)


def _metric(task: Task, known: Benchmark | None) -> Metric:
    """The metric of a published dataset; top-1 of others."""
    if known is None:
        return "top1"
    match known.metric:
        case "pm" | "image_to_text_r1":
            raise SettingsError(
                f"the task {task.name!r}: {known.title} is not measured by the classes of its images; "
                "see: diptych evaluate --help"
            )
        case metric:
            return metric


def _learned_metric(task: LinearProbe | FewShot, known: Benchmark | None) -> Headline:
    metric = task.metric or _metric(task, known)
    if metric == "map11":
        raise SettingsError(
            f"the task {task.name!r}: several labels an image are not learned here; see: diptych evaluate --help"
        )
    return metric
