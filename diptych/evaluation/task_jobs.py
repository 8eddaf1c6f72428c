"""How each task of `diptych.evaluation.tasks` opens its data and measures a model."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from diptych.config import plain
from diptych.data.sources.opening import Source
from diptych.embed.encode import Progress
from diptych.errors import SettingsError, UsageError
from diptych.evaluation.datasets.dataset import dataset_named
from diptych.evaluation.job import Context, Job, Subject, TaskData
from diptych.evaluation.probes.few_shot import evaluate_few_shot
from diptych.evaluation.probes.linear_probe import MOST_FITS, evaluate_linear_probe
from diptych.evaluation.probes.multi_label_features import multi_label_features
from diptych.evaluation.probes.probe_data import LabelledFeatures, ProbeData, labelled_features
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.task_report import Report
from diptych.evaluation.tasks import (
    PUBLISHED,
    FewShot,
    LabelFrom,
    LinearProbe,
    Metric,
    OwnLabels,
    Retrieval,
    WordOrder,
    ZeroShot,
)
from diptych.evaluation.word_order import evaluate_word_order
from diptych.evaluation.zero_shot.class_labels import LabelSet, read_labels
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.multi_label import evaluate_multi_label
from diptych.evaluation.zero_shot.own_classes import evaluate_own_classes
from diptych.evaluation.zero_shot.prompts import check_templates, templates_named

Features = TypeVar("Features", bound=ProbeData)


class ZeroShotData(NamedTuple):
    """The data, classes and words of a zero-shot task. labels: None for those that occur in the source."""

    source: Source
    labels: LabelSet | None
    templates: tuple[str, ...]
    label_from: LabelFrom
    metric: Metric


def zero_shot_data(task: ZeroShot, context: Context) -> ZeroShotData:
    """Open the data of a task, and read its labels and templates; those of a published dataset where none are given."""
    data = context.tested(task)
    own = _labels(task.labels)
    given = _templates(task.templates, f"the task {task.name!r}") or (own and own.templates)
    return ZeroShotData(
        source=data.source,
        labels=own or data.labels,
        templates=given or (data.known and data.known.templates) or context.templates,
        label_from=task.label_from or data.label_from,
        metric=_metric(task, data),
    )


def zero_shot(task: ZeroShot, context: Context) -> Job:
    """Prepare `evaluate_zero_shot`, or `evaluate_multi_label` where images have several labels."""
    source, labels, words, label_from, metric = zero_shot_data(task, context)
    if metric == "map11" and (task.group_by is not None or task.label_from is not None):
        raise UsageError(
            f"the task {task.name!r}: map11 takes the classes from the metadata; leave out group_by and label_from"
        )

    def measure(subject: Subject, progress: Progress | None) -> Report:
        run = partial(_run, subject, source, progress, labels=labels, templates=words, build=subject.build)
        if metric == "map11":
            return run(evaluate_multi_label)
        return run(evaluate_zero_shot, label_from=label_from, group_by=task.group_by, headline=metric)

    return Job(
        sources=(source,),
        measure=measure,
        words={"labels": plain(labels), "templates": list(words)},
        phrases=_phrases(labels),
    )


def retrieval(task: Retrieval, context: Context) -> Job:
    """Prepare `evaluate_retrieval`."""
    source = context.tested(task).source

    def measure(subject: Subject, progress: Progress | None) -> Report:
        return _run(subject, source, progress, evaluate_retrieval, truncate=task.truncate)

    return Job(sources=(source,), measure=measure)


def word_order(task: WordOrder, context: Context) -> Job:
    """Prepare `evaluate_word_order`."""
    source = context.tested(task).source

    def measure(subject: Subject, progress: Progress | None) -> Report:
        return _run(subject, source, progress, evaluate_word_order)

    return Job(sources=(source,), measure=measure)


def own_labels(task: OwnLabels, context: Context) -> Job:
    """Prepare `evaluate_own_classes`."""
    data = context.tested(task)
    label_from = task.label_from or data.label_from

    def measure(subject: Subject, progress: Progress | None) -> Report:
        return _run(subject, data.source, progress, evaluate_own_classes, label_from=label_from)

    return Job(sources=(data.source,), measure=measure, phrases=_phrases(data.labels))


def linear_probe(task: LinearProbe, context: Context) -> Job:
    """Prepare `evaluate_linear_probe`."""
    test = context.tested(task)
    train = _training_data(task, context)
    validation = [] if task.validation is None else [context.open(task.validation, task)]
    metric = _metric(task, test)
    if metric == "map11" and task.label_from is not None:
        raise UsageError(
            f"the task {task.name!r}: map11 takes the classes from the metadata; leave out label_from"
        )

    def features(
        subject: Subject, data: TaskData, classes: LabelSet | None, progress: Progress | None
    ) -> ProbeData:
        if metric == "map11":
            return _features(multi_label_features, subject, data, classes, progress)
        return _labelled_features(task, subject, data, classes, progress)

    def measure(subject: Subject, progress: Progress | None) -> Report:
        learned = features(subject, train, None, progress)
        classes = LabelSet.of(learned.classes)
        return evaluate_linear_probe(
            learned,
            *(features(subject, part, classes, progress) for part in (test, *validation)),
            model_name=subject.name,
            headline=metric,
            seed=task.seed,
            device=subject.model.device,
            progress=progress,
        )

    return Job(
        sources=tuple(part.source for part in (test, train, *validation)),
        measure=measure,
        phrases=_phrases(test.labels),
        fits=MOST_FITS,
    )


def few_shot(task: FewShot, context: Context) -> Job:
    """Prepare `evaluate_few_shot`."""
    test = context.tested(task)
    train = _training_data(task, context)
    metric = _metric(task, test)
    if metric == "map11":
        raise SettingsError(
            f"the task {task.name!r}: the images of {task.data} have several labels each, which few-shot does not "
            "learn; use the task linear-probe"
        )

    def measure(subject: Subject, progress: Progress | None) -> Report:
        learned = _labelled_features(task, subject, train, None, progress)
        return evaluate_few_shot(
            learned,
            _labelled_features(task, subject, test, LabelSet.of(learned.classes), progress),
            model_name=subject.name,
            shots=task.shots,
            seeds=task.seeds,
            headline=metric,
            zero_shot=task.zero_shot,
            device=subject.model.device,
            progress=progress,
        )

    return Job(
        sources=(test.source, train.source),
        measure=measure,
        phrases=_phrases(test.labels),
        fits=len(set(task.shots)) * task.seeds,
    )


def _run(
    subject: Subject,
    source: Source,
    progress: Progress | None,
    evaluate: Callable[..., Report],
    **settings: Any,
) -> Report:
    """Measure a model on a source with a function of this package, which takes the subject's fields by these names."""
    return evaluate(
        subject.model,
        subject.preprocess,
        source,
        model_name=subject.name,
        batch_size=subject.batch_size,
        progress=progress,
        **settings,
    )


def _features(
    compute: Callable[..., Features],
    subject: Subject,
    data: TaskData,
    classes: LabelSet | None,
    progress: Progress | None,
    **settings: Any,
) -> Features:
    """Compute the features of images; classes: those of the data when not given."""
    return compute(
        subject.model,
        subject.preprocess,
        data.source,
        labels=classes,
        batch_size=subject.batch_size,
        progress=progress,
        **settings,
    )


def _labelled_features(
    task: LinearProbe | FewShot,
    subject: Subject,
    data: TaskData,
    classes: LabelSet | None,
    progress: Progress | None,
) -> LabelledFeatures:
    label_from = task.label_from or data.label_from
    return _features(labelled_features, subject, data, classes, progress, label_from=label_from)


def _training_data(task: LinearProbe | FewShot, context: Context) -> TaskData:
    if task.train is not None:
        return context.open(task.train, task)
    if not task.data.startswith(PUBLISHED):
        raise UsageError(
            f"the task {task.name!r}: train is missing: {task.data} is not a published dataset, whose training split "
            "is known; name labelled images to learn from"
        )
    name = task.data.removeprefix(PUBLISHED).partition(":")[0]
    split = dataset_named(name).train_split
    if split is None:
        raise UsageError(
            f"the task {task.name!r}: train is missing: {name} has no training split; name images of the same classes"
        )
    return context.open(f"{PUBLISHED}{name}:{split}", task)


def _labels(given: str | tuple[str, ...] | None) -> LabelSet | None:
    if isinstance(given, str):
        return read_labels(given)
    return None if given is None else LabelSet.of(given)


def _phrases(labels: LabelSet | None) -> dict[str, str]:
    """Return the first phrase of each class that has another one than its name."""
    if labels is None:
        return {}
    first = {name: phrases[0] for name, phrases in zip(labels.names, labels.phrases, strict=True)}
    return {name: phrase for name, phrase in first.items() if phrase != name}


def _templates(given: str | tuple[str, ...] | None, where: str) -> tuple[str, ...] | None:
    if isinstance(given, str):
        return templates_named(given)
    return None if given is None else check_templates(given, where)


def _metric(task: ZeroShot | LinearProbe | FewShot, data: TaskData) -> Metric:
    """Return the metric that comes first: the task's, that of a published dataset, or top-1."""
    if task.metric is not None:
        return task.metric
    if data.known is None:
        return "top1"
    match data.known.metric:
        case "pm" | "image_to_text_r1":
            raise SettingsError(
                f"the task {task.name!r}: {data.known.title} is not measured by the classes of its images; see: "
                "diptych evaluate --help"
            )
        case metric:
            return metric
