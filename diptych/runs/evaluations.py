"""The evaluations of a recipe: their data, and what the engine calls to measure a model."""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.config import nearest
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.data.subsets.selection import Selection
from diptych.embed.encode import Preprocessing
from diptych.errors import SettingsError
from diptych.evaluation.job import Context, Job, OpenData, Subject, TaskData, open_data, prepare
from diptych.evaluation.task_report import Report
from diptych.evaluation.tasks import TASKS, TaskSettings, read_task
from diptych.models.architectures import (
    Architecture,
    Classifier,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.runs.finetune_data import examine
from diptych.runs.finetune_figures import Measure
from diptych.training.feeding import open_whole, split_of
from diptych.training.saving.layout import HELD_OUT
from diptych.training.settings import SAID_OF_EVERY_TASK, Recipe
from diptych.training.starting import with_classes

_REHEARSED = 16  # images of an evaluation that are measured before a run begins
_SIDE = 16  # pixels of an image of a rehearsal
# Where a recipe says nothing, captions are cut: as those that are trained on are.
_DEFAULTS: dict[str, dict[str, Any]] = {"retrieval": {"truncate": True}}


def evaluation_of(recipe: Recipe) -> Callable[[ImageModel, Preprocess], Mapping[str, float]] | None:
    """Return what the engine calls to measure a model as `[evaluation]` says; None where the recipe has no tasks.

    The log gets `TASK_METRIC` for each metric of each task. The data are opened and rehearsed now, not after hours.

    Raises:
        SettingsError: a setting of a task is unknown or cannot be used, or `best` is not a metric of the tasks.
        UsageError: settings of a task that do not go together.
        DataError: the data cannot be opened or measured.
    """
    if not recipe.evaluation.tasks:
        return None
    return partial(_measure, _rehearse(recipe))


def reports_of(recipe: Recipe) -> Measure:
    """Return `evaluation_of` with the whole report of each task, by its name."""
    asked = recipe.evaluation.tasks or recipe.evaluation.best is not None
    jobs = _rehearse(recipe) if asked else {}

    def measure(
        model: ImageModel, preprocess: Preprocess, *, skip: Collection[str] = ()
    ) -> Mapping[str, Report]:
        return {name: _report(name, job, model, preprocess) for name, job in jobs.items() if name not in skip}

    return measure


def read_tasks(recipe: Recipe) -> list[TaskSettings]:
    """Read the tables of `[[evaluation.tasks]]` strictly; nothing is opened.

    Raises:
        SettingsError: a task or a setting is unknown, missing, or of another type.
    """
    return [
        _read_task(table, f"[[evaluation.tasks]] {number}")
        for number, table in enumerate(recipe.evaluation.tasks, 1)
    ]


def open_tasks(recipe: Recipe) -> dict[str, Job]:
    """Open the data of each task of `[evaluation]`, by the task's name; raises what `evaluation_of` does."""
    context = Context(open=_opener(recipe))
    return {task.name: prepare(task, context) for task in read_tasks(recipe)}


def held_out_part(recipe: Recipe) -> Source:
    """Return what `[data] validation` keeps from training."""
    if not recipe.data.validation:
        raise SettingsError(
            f"[evaluation] data = {HELD_OUT!r}: nothing is held out; set [data] validation to a share such as 0.2, or "
            "name other data"
        )
    source, weights = open_whole(recipe.data)
    found = split_of(recipe.data, source, lambda text: print(text, file=sys.stderr))
    positions = np.flatnonzero(found.held_out & (weights > 0)).tolist()
    if not positions:
        raise SettingsError(
            f"[evaluation] data = {HELD_OUT!r}: nothing can be held out: the images of each class are one group "
            f"({found.grouped_by}); add other images, or group them by another column with [data] group_by"
            + (", or set [data] near_copies = false" if recipe.data.group_by is None else "")
        )
    return Selection(source, positions, f"{source.name} (held out)")


def _read_task(table: Mapping[str, Any], where: str) -> TaskSettings:
    given = {key: value for key, value in table.items() if value != SAID_OF_EVERY_TASK.get(key)}
    return read_task({**_DEFAULTS.get(str(table.get("task")), {}), **given}, where)


def _opener(recipe: Recipe) -> OpenData:
    """Return what opens data, the held-out part included; the same data once."""
    opened: dict[tuple[str | None, ...], TaskData] = {}

    def open_place(place: str, task: TaskSettings) -> TaskData:
        key = (place, *task.table_options().values())
        if key not in opened:
            held_out = place == HELD_OUT
            opened[key] = TaskData(held_out_part(recipe)) if held_out else open_data(place, task)
        return opened[key]

    return open_place


def _rehearse(recipe: Recipe) -> dict[str, Job]:
    """Open the data of each task, measure a model of next to nothing on a few images, and look for `best`.

    A task that learns reads the labels of all rows, so that classes with too few images are found now; its images
    after the first few are blank.
    """
    tasks, open_place = read_tasks(recipe), _opener(recipe)
    jobs = {task.name: prepare(task, Context(open=open_place)) for task in tasks}
    names: list[str] = []
    stand_in = _stand_in(recipe) if tasks else None
    for task in tasks:
        learns = TASKS[task.task].learns
        assert stand_in is not None
        job = jobs[task.name] if learns else prepare(task, Context(open=open_place, cut=_few))
        names += _measure({task.name: job}, stand_in, _FewImages() if learns else Preprocess(_SIDE))
    best = recipe.evaluation.best
    if best is not None and best not in names:
        raise SettingsError(
            f"[evaluation] best = {best!r}: not a metric of the recipe's evaluations; {nearest(best, names)}"
        )
    return jobs


class _FewImages:
    """Preprocessing that reads the first images, and gives blank ones for all others."""

    def __init__(self) -> None:
        self._preprocess = Preprocess(_SIDE)
        self._left = _REHEARSED

    def __call__(self, image: Any) -> Tensor:
        self._left -= 1
        return self._preprocess(image) if self._left >= 0 else torch.zeros(3, _SIDE, _SIDE)


def _few(source: Source) -> Source:
    """Return a few rows from all over a source, for classes often follow one another."""
    last, rows = len(source) - 1, min(_REHEARSED, len(source))
    return Selection(source, [last * place // max(1, rows - 1) for place in range(rows)], source.name)


def _stand_in(recipe: Recipe) -> ImageModel:
    """Return a model of next to nothing with the text side or the classes that the recipe's model has."""
    architecture = with_classes(recipe).model.resolve()
    text, own = architecture.text, architecture.classifier
    if own is None and recipe.finetune is not None:
        own = _classes_to_be(recipe)
    stand_in_text = TextTransformer(width=8, layers=1, heads=1, context_length=text.context_length)
    stand_in = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=_SIDE, patch=_SIDE, width=8, layers=1, heads=1),
        text=architecture.label_head or stand_in_text,
        classifier=own,
    )
    return build_model(stand_in).eval()


def _classes_to_be(recipe: Recipe) -> Classifier | None:
    """Return the classifier that fine-tuning will add, for a recipe that has not been prepared."""
    assert recipe.finetune is not None
    found = examine(
        open_whole(recipe.data)[0],
        label_from=recipe.data.label_from,
        several=recipe.finetune.several,
        method=recipe.finetune.method,
    )
    return (
        Classifier(classes=found.classes, reads="embedding", several=recipe.finetune.several)
        if found.classes
        else None
    )


def _measure(jobs: Mapping[str, Job], model: ImageModel, preprocess: Preprocessing) -> dict[str, float]:
    return {
        f"{name}_{metric}": value
        for name, job in jobs.items()
        for metric, value in _report(name, job, model, preprocess).scores.metrics.items()
    }


def _report(name: str, job: Job, model: ImageModel, preprocess: Preprocessing) -> Report:
    model_name = f"the model of the task {name!r}"
    return job.measure(Subject(model=model, preprocess=preprocess, name=model_name), None)
