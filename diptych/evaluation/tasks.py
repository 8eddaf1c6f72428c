"""The evaluation tasks, each described once: its settings, the data it needs, its headline, and how it is run.

The command line (`diptych evaluate`), a suite (`diptych evaluate all`) and a recipe's `[evaluation]` all read `TASKS`.
Nothing heavy is imported here, so that `--help` answers at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple

from diptych import config
from diptych.config import nearest
from diptych.errors import SettingsError

PUBLISHED = "benchmark:"  # before the name of a published dataset

LabelFrom = Literal["label", "caption"]
# The metric that stands for a dataset in the paper's tables: accuracy for most, the mean over classes where classes
# are uneven (pets, flowers, aircraft, Caltech), the mean of top-1 and top-5 for Kinetics, the area under the ROC
# curve for Hateful Memes.
Headline = Literal["top1", "mean_per_class", "mean_top1_top5", "roc_auc"]
Metric = Literal[Headline, "map11"]  # map11: several labels an image

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 3


class Option(NamedTuple):
    """A setting's help, and its names on the command line: the setting's own name where none are given."""

    help: str
    flags: tuple[str, ...] = ()


_LabelFrom = Annotated[LabelFrom | None, Option("Where the class of an image stands; label without it.")]
_TESTED_ON = (
    "Labelled images to test on: class folders, a table, tar shards, or benchmark:NAME or benchmark:NAME:SPLIT (see: "
    "diptych evaluate datasets)."
)
_Train = Annotated[
    str | None,
    Option(
        "Labelled images to learn from, as --test; without it, the training split of a published dataset."
    ),
]


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What is said about every task: its name, its data, and how tables among the data are read.

    data: as `open_source` takes it, or `benchmark:NAME` or `benchmark:NAME:SPLIT`. where: metadata field = values of
    the rows of `data` to keep. The other settings are those of `open_source`, found when not given.
    """

    name: str
    task: str
    data: str
    where: dict[str, tuple[str, ...]] | None = None
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    delimiter: str | None = None
    image_root: str | None = None

    def table_options(self) -> dict[str, str | None]:
        """Return the options of `open_source` for a table, by their names there."""
        names = [
            field.name
            for field in fields(TaskSettings)
            if field.name not in ("name", "task", "data", "where")
        ]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class ZeroShot(TaskSettings):
    """`evaluate_zero_shot`; with the metric `map11`, `evaluate_multi_label`.

    A published dataset brings its own labels, templates and metric where none are given.
    """

    task: Literal["zero-shot"] = "zero-shot"
    labels: Annotated[
        str | tuple[str, ...] | None,
        Option(
            "The classes: text with one a line, TOML or JSON, or a .csv or .tsv table of names.",
            ("--labels-file",),
        ),
    ] = None
    templates: Annotated[
        str | tuple[str, ...] | None,
        Option(
            "plain, photo, drawings, imagenet, imagenet-7, one such as 'a photo of a {}.', or a file: text with one a "
            "line, or TOML with templates. Without it: those of the labels file, or what suits the model."
        ),
    ] = None
    label_from: _LabelFrom = None
    metric: Annotated[
        Metric | None,
        Option(
            "The one that comes first; without it, a published dataset's own, else top1. roc_auc: of two classes. "
            "map11: images of several classes, which stand in their metadata under `labels`."
        ),
    ] = None
    group_by: Annotated[str | None, Option("Also report each value of this metadata field.")] = None


@dataclass(frozen=True, kw_only=True)
class Retrieval(TaskSettings):
    """`evaluate_retrieval`."""

    task: Literal["retrieval"] = "retrieval"
    truncate: Annotated[bool, Option("Cut captions that are too long.")] = False


@dataclass(frozen=True, kw_only=True)
class WordOrder(TaskSettings):
    """`evaluate_word_order`."""

    task: Literal["word-order"] = "word-order"


@dataclass(frozen=True, kw_only=True)
class OwnLabels(TaskSettings):
    """`evaluate_own_classes`."""

    task: Literal["labels"] = "labels"
    label_from: _LabelFrom = None


@dataclass(frozen=True, kw_only=True)
class LinearProbe(TaskSettings):
    """`evaluate_linear_probe`: learns from `train`, is tested on `data`."""

    task: Literal["linear-probe"] = "linear-probe"
    data: Annotated[str, Option(_TESTED_ON, ("--test",))]
    train: _Train = None
    validation: Annotated[
        str | None,
        Option(
            "Labelled images to choose the regularisation with, as --test; a fifth of --train without it."
        ),
    ] = None
    metric: Annotated[
        Metric | None,
        Option(
            "To choose the regularisation by, and to report first; without it, a published dataset's own, else top1. "
            "map11: images of several classes, which stand in their metadata under `labels`."
        ),
    ] = None
    label_from: _LabelFrom = None
    seed: Annotated[int, Option("Seed of the draw of the validation images.")] = 0


@dataclass(frozen=True, kw_only=True)
class FewShot(TaskSettings):
    """`evaluate_few_shot`: learns from a few images a class of `train`, is tested on `data`."""

    task: Literal["few-shot"] = "few-shot"
    data: Annotated[str, Option(_TESTED_ON, ("--test",))]
    train: _Train = None
    shots: Annotated[tuple[int, ...], Option("Numbers of images a class to learn from.")] = SHOTS
    seeds: Annotated[int, Option("How often the images are drawn.")] = SEEDS
    zero_shot: Annotated[
        float | None,
        Option(
            "The model's zero-shot accuracy on the same test images, in 0..1, as diptych evaluate zero-shot gives it: "
            "also say how many images a class a probe needs to be as good."
        ),
    ] = None
    metric: Annotated[Headline | None, Option("Without it, a published dataset's own, else top1.")] = None
    label_from: _LabelFrom = None


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """One way to measure a model.

    settings: what may be said about the task; fields with an `Option` are options of the command line. job:
    "module:function" of what opens the data and measures: see `diptych.evaluation.job.prepare`. needs: what the rows
    of the data have. headline: the metrics that stand for a report, where its details do not name one. learns: the task
    fits a classifier to labelled rows. words: it makes a classifier of words, which the cache keeps. default_model:
    whether the bundled model can be measured.
    """

    settings: type[TaskSettings]
    job: str
    summary: str
    needs: str
    example: str
    headline: tuple[str, ...] = ()
    learns: bool = False
    words: bool = False
    default_model: bool = True


_JOBS = "diptych.evaluation.task_jobs"

TASKS: dict[str, EvaluationTask] = {
    "zero-shot": EvaluationTask(
        settings=ZeroShot,
        job=f"{_JOBS}:zero_shot",
        summary="Top-1 and top-5 accuracy of naming images by their classes' names alone.",
        needs="a label for each image, or several",
        example="diptych evaluate zero-shot --data birds/ --templates photo",
        words=True,
    ),
    "retrieval": EvaluationTask(
        settings=Retrieval,
        job=f"{_JOBS}:retrieval",
        summary="Recall at 1, 5 and 10 of captions by images, and of images by captions.",
        needs="a caption for each image, or several",
        example="diptych evaluate retrieval --data captions.csv",
        headline=("image_to_text_r1", "text_to_image_r1"),
    ),
    "linear-probe": EvaluationTask(
        settings=LinearProbe,
        job=f"{_JOBS}:linear_probe",
        summary="Accuracy of a logistic regression on a model's features.",
        needs="a label for each image, or several",
        example="diptych evaluate linear-probe --train birds/train --test birds/test",
        learns=True,
    ),
    "few-shot": EvaluationTask(
        settings=FewShot,
        job=f"{_JOBS}:few_shot",
        summary="Accuracy of probes that learn from a few images a class.",
        needs="a label for each image",
        example="diptych evaluate few-shot --train birds/train --test birds/test --shots 1,2,4",
        learns=True,
    ),
    "labels": EvaluationTask(
        settings=OwnLabels,
        job=f"{_JOBS}:own_labels",
        summary="Accuracy of a model that was trained with labels, at its own classes.",
        needs="a label for each image, or several",
        example="diptych evaluate labels --data birds/ --model runs/labels/model",
        default_model=False,
    ),
    "word-order": EvaluationTask(
        settings=WordOrder,
        job=f"{_JOBS}:word_order",
        summary="How often a model prefers an image's caption to a wrong one of the same words: does order matter?",
        needs="a caption for each image, and a wrong one as `foil` in its metadata",
        example="diptych evaluate word-order --model runs/first --data scenes:binding",
        headline=("accuracy",),
    ),
}


def read_task(table: Mapping[str, Any], where: str) -> TaskSettings:
    """Return the settings that a table of a TOML file gives: a `name`, a `task` and that task's settings.

    where: the table's place, for messages. Raises SettingsError for anything unknown, missing, or of another type.
    """
    kind = table.get("task")
    if not isinstance(kind, str):
        raise SettingsError(f"{where}: task {kind!r}: expected one of {', '.join(TASKS)}")
    if kind not in TASKS:
        raise SettingsError(f"{where}: task {kind!r}: {nearest(kind, TASKS)}")
    return config.build(TASKS[kind].settings, table, where)
