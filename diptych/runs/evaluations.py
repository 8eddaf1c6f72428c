"""The evaluations of a recipe: their data, and what the engine calls to measure a model."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np

from diptych.config import nearest
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.data.subsets.selection import Selection, select_rows
from diptych.errors import SettingsError
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.task_report import Report
from diptych.evaluation.word_order import evaluate_word_order
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.own_classes import evaluate_own_classes
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
from diptych.training.feeding import open_whole, split_of, table_options
from diptych.training.saving.layout import HELD_OUT
from diptych.training.settings import EvaluationTask, Recipe
from diptych.training.starting import with_classes

EvaluationOf = tuple[EvaluationTask, Source]
_REHEARSED = 16  # rows of an evaluation that are measured before a run begins


def evaluation_of(recipe: Recipe) -> Callable[[ImageModel, Preprocess], Mapping[str, float]] | None:
    """What the engine calls to measure a model as `[evaluation]` says; None where the recipe has no tasks.

    The log gets `TASK_METRIC` for each metric of each task. The data are opened and a few rows of them measured now,
    not after hours: raises DataError where that fails, and SettingsError where `best` is no metric of them.
    """
    tasks = open_tasks(recipe)
    if not tasks:
        return None
    _check_best(tasks, recipe)
    return partial(_measured, tasks)


def reports_of(recipe: Recipe) -> Measure:
    """`evaluation_of` with the whole report of each task, by its name."""
    tasks = open_tasks(recipe)
    if tasks or recipe.evaluation.best is not None:
        _check_best(tasks, recipe)

    def measure(
        model: ImageModel, preprocess: Preprocess, *, skip: Collection[str] = ()
    ) -> Mapping[str, Report]:
        return {
            task.name: _report(task, source, model, preprocess)
            for task, source in tasks
            if task.name not in skip
        }

    return measure


def open_tasks(recipe: Recipe) -> list[EvaluationOf]:
    """Open the data of each task of `[evaluation]`; raises DataError where that fails."""

    return [
        (
            task,
            select_rows(
                held_out_part(recipe)
                if task.data == HELD_OUT
                else open_source(task.data, **table_options(task)),
                task.where,
            ),
        )
        for task in recipe.evaluation.tasks
    ]


def held_out_part(recipe: Recipe) -> Source:
    """What `[data] validation` keeps from training."""

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


def _check_best(tasks: Sequence[EvaluationOf], recipe: Recipe) -> None:
    """Measure a few rows of each task, and look for the metric of the best among what that gives."""

    names, best = _rehearsed(tasks, recipe), recipe.evaluation.best
    if best is not None and best not in names:
        raise SettingsError(
            f"[evaluation] best = {best!r}: no metric of the recipe's evaluations; {nearest(best, names)}"
        )


def _rehearsed(tasks: Sequence[EvaluationOf], recipe: Recipe) -> list[str]:
    """The names of what will be measured, from a few rows of each task and a model of next to nothing."""

    few = []
    for task, source in tasks:
        last, rows = len(source) - 1, min(_REHEARSED, len(source))
        # From all over the data, for classes often follow one another.
        chosen = [last * place // max(1, rows - 1) for place in range(rows)]
        few.append((task, Selection(source, chosen, source.name)))
    architecture = with_classes(recipe).model.resolve()
    text, own = architecture.text, architecture.classifier
    if own is None and recipe.finetune is not None:
        own = _classes_to_be(recipe)
    stand_in_text = TextTransformer(width=8, layers=1, heads=1, context_length=text.context_length)
    stand_in = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=16, patch=16, width=8, layers=1, heads=1),
        text=architecture.label_head or stand_in_text,
        classifier=own,
    )
    return list(_measured(few, build_model(stand_in).eval(), Preprocess(16)))


def _classes_to_be(recipe: Recipe) -> Classifier | None:
    """The classifier that fine-tuning will add, for a recipe that has not been prepared."""

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


def _measured(tasks: Sequence[EvaluationOf], model: ImageModel, preprocess: Preprocess) -> dict[str, float]:
    return {
        f"{task.name}_{metric}": value
        for task, source in tasks
        for metric, value in _report(task, source, model, preprocess).scores.metrics.items()
    }


def _report(task: EvaluationTask, source: Source, model: ImageModel, preprocess: Preprocess) -> Report:

    if task.task == "labels":
        return evaluate_own_classes(
            model, preprocess, source, model_name=task.name, label_from=task.label_from
        )
    if task.task == "word-order":
        return evaluate_word_order(model, preprocess, source, model_name=task.name)
    if task.task == "retrieval":
        return evaluate_retrieval(model, preprocess, source, model_name=task.name, truncate=True)
    return evaluate_zero_shot(model, preprocess, source, model_name=task.name, label_from=task.label_from)
