"""`diptych train`: pre-train with a recipe."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Device, Json
from diptych.cli.output import emit, say, say_left_out
from diptych.training.layout import BEST, HELD_OUT

if TYPE_CHECKING:
    from diptych.data.sources import Source
    from diptych.data.transforms import Preprocess
    from diptych.evaluation.report import Report
    from diptych.finetuning.run import Measure
    from diptych.models.architectures import Classifier
    from diptych.models.clip import CLIP
    from diptych.training.settings import EvaluationTask, Recipe

    EvaluationOf = tuple[EvaluationTask, Source]

_REHEARSED = 16  # rows of an evaluation that are measured before a run begins

Assignments = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="section.key=value, in place of what the recipe says."),
]
RecipePlace = Annotated[str, Parameter(help="A TOML file, or the name of a shipped recipe, such as sample.")]


def train(
    recipe: RecipePlace,
    /,
    *,
    assignments: Assignments = (),
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The folder of the run; runs/NAME without it.")
    ] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with the run that is in the folder.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Pre-train a model with a recipe; the result is in the folder of the run, under model/."""
    from diptych.cli.machine import pick_device  # noqa: PLC0415
    from diptych.config import plain  # noqa: PLC0415
    from diptych.training.engine import train as run  # noqa: PLC0415
    from diptych.training.recipes import load_recipe  # noqa: PLC0415

    settings = load_recipe(recipe, assignments)
    folder = out if out is not None else Path("runs") / Path(recipe).stem
    chosen = pick_device(device)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one reports
    if leads:
        say(f"training on {chosen}, into {folder}")
    if settings.finetune is not None:
        from diptych.cli.finetune import run_and_tell  # noqa: PLC0415 - it needs this module

        run_and_tell(settings, folder, resume=resume, device=chosen, as_json=as_json)
        return
    result = run(settings, folder, resume=resume, device=chosen, evaluate=evaluation_of(settings))
    if not leads:
        return
    say_left_out(result.left_out)
    best = result.best
    if as_json:
        emit(
            {
                "step": result.step,
                "samples": result.samples,
                "loss": result.loss,
                "samples_per_second": result.samples_per_second,
                "checkpoint": result.checkpoint,
                "best": None if best is None else {"checkpoint": str(folder / BEST), **plain(best)},
                "left_out": result.left_out.to_json(),
            }
        )
    else:
        if best is not None:
            print(f"{folder / BEST}: {best.metric} {best.value:.4g}, the best, after step {best.step:,}")
        pace = (
            f"{result.samples_per_second:,.0f} pairs a second"
            if result.samples_per_second
            else "done before: nothing was left to train"
        )
        print(
            f"{result.checkpoint}: {result.step:,} steps, {result.samples:,} pairs, loss {result.loss:.3f}, {pace}"
        )


def evaluation_of(recipe: "Recipe") -> "Callable[[CLIP, Preprocess], Mapping[str, float]] | None":
    """What the engine calls to measure a model as `[evaluation]` says; None where the recipe has no tasks.

    The log gets `TASK_METRIC` for each metric of each task. The data are opened and a few rows of them measured now,
    not after hours: raises DataError where that fails, and SettingsError where `best` is no metric of them.
    """
    tasks = open_tasks(recipe)
    if not tasks:
        return None
    _check_best(tasks, recipe)
    return partial(_measured, tasks)


def reports_of(recipe: "Recipe") -> "Measure":
    """`evaluation_of` with the whole report of each task, by its name."""
    tasks = open_tasks(recipe)
    if tasks or recipe.evaluation.best is not None:
        _check_best(tasks, recipe)

    def measure(
        model: "CLIP", preprocess: "Preprocess", *, skip: Collection[str] = ()
    ) -> "Mapping[str, Report]":
        return {
            task.name: _report(task, source, model, preprocess)
            for task, source in tasks
            if task.name not in skip
        }

    return measure


def open_tasks(recipe: "Recipe") -> "list[EvaluationOf]":
    """Open the data of each task of `[evaluation]`; raises DataError where that fails."""
    from diptych.cli.selection import where  # noqa: PLC0415
    from diptych.data.sources import open_source  # noqa: PLC0415
    from diptych.training.feeding import table_options  # noqa: PLC0415

    return [
        (
            task,
            where(
                held_out_part(recipe)
                if task.data == HELD_OUT
                else open_source(task.data, **table_options(task)),
                task.where,
            ),
        )
        for task in recipe.evaluation.tasks
    ]


def held_out_part(recipe: "Recipe") -> "Source":
    """What `[data] validation` keeps from training."""
    import numpy as np  # noqa: PLC0415

    from diptych.cli.selection import Selected  # noqa: PLC0415
    from diptych.errors import SettingsError  # noqa: PLC0415
    from diptych.training.feeding import open_whole, split_of  # noqa: PLC0415

    if not recipe.data.validation:
        raise SettingsError(
            f"[evaluation] data = {HELD_OUT!r}: nothing is held out; set [data] validation to a share such as 0.2, or "
            "name other data"
        )
    source, weights = open_whole(recipe.data)
    found = split_of(recipe.data, source, say)
    positions = np.flatnonzero(found.held_out & (weights > 0)).tolist()
    if not positions:
        raise SettingsError(
            f"[evaluation] data = {HELD_OUT!r}: nothing can be held out: the images of each class are one group "
            f"({found.grouped_by}); add other images, or group them by another column with [data] group_by"
            + (", or set [data] near_copies = false" if recipe.data.group_by is None else "")
        )
    return Selected(source, positions, f"{source.name} (held out)")


def _check_best(tasks: "Sequence[EvaluationOf]", recipe: "Recipe") -> None:
    """Measure a few rows of each task, and look for the metric of the best among what that gives."""
    from diptych.config import nearest  # noqa: PLC0415
    from diptych.errors import SettingsError  # noqa: PLC0415

    names, best = _rehearsed(tasks, recipe), recipe.evaluation.best
    if best is not None and best not in names:
        raise SettingsError(
            f"[evaluation] best = {best!r}: no metric of the recipe's evaluations; {nearest(best, names)}"
        )


def _rehearsed(tasks: "Sequence[EvaluationOf]", recipe: "Recipe") -> list[str]:
    """The names of what will be measured, from a few rows of each task and a model of next to nothing."""
    from diptych.cli.selection import Selected  # noqa: PLC0415
    from diptych.data.transforms import Preprocess  # noqa: PLC0415
    from diptych.models.architectures import (  # noqa: PLC0415
        Architecture,
        LabelHead,
        TextTransformer,
        VisionTransformer,
    )
    from diptych.models.clip import build_model  # noqa: PLC0415
    from diptych.training.starting import with_classes  # noqa: PLC0415

    few = []
    for task, source in tasks:
        last, rows = len(source) - 1, min(_REHEARSED, len(source))
        # From all over the data, for classes often follow one another.
        chosen = [last * place // max(1, rows - 1) for place in range(rows)]
        few.append((task, Selected(source, chosen, source.name)))
    architecture = with_classes(recipe).model.resolve()
    text, own = architecture.text, architecture.classifier
    if own is None and recipe.finetune is not None:
        own = _classes_to_be(recipe)
    stand_in_text = TextTransformer(width=8, layers=1, heads=1, context_length=text.context_length)
    stand_in = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=16, patch=16, width=8, layers=1, heads=1),
        text=text if isinstance(text, LabelHead) else stand_in_text,
        classifier=own,
    )
    return list(_measured(few, build_model(stand_in).eval(), Preprocess(16)))


def _classes_to_be(recipe: "Recipe") -> "Classifier | None":
    """The classifier that fine-tuning will add, for a recipe that has not been prepared."""
    from diptych.finetuning.examination import examine  # noqa: PLC0415
    from diptych.models.architectures import Classifier  # noqa: PLC0415
    from diptych.training.feeding import open_whole  # noqa: PLC0415

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


def _measured(tasks: "Sequence[EvaluationOf]", model: "CLIP", preprocess: "Preprocess") -> dict[str, float]:
    return {
        f"{task.name}_{metric}": value
        for task, source in tasks
        for metric, value in _report(task, source, model, preprocess).scores.metrics.items()
    }


def _report(task: "EvaluationTask", source: "Source", model: "CLIP", preprocess: "Preprocess") -> "Report":
    from diptych.evaluation.own_classes import evaluate_own_classes  # noqa: PLC0415
    from diptych.evaluation.retrieval import evaluate_retrieval  # noqa: PLC0415
    from diptych.evaluation.word_order import evaluate_word_order  # noqa: PLC0415
    from diptych.evaluation.zero_shot import evaluate_zero_shot  # noqa: PLC0415

    if task.task == "labels":
        return evaluate_own_classes(
            model, preprocess, source, model_name=task.name, label_from=task.label_from
        )
    if task.task == "word-order":
        return evaluate_word_order(model, preprocess, source, model_name=task.name)
    if task.task == "retrieval":
        return evaluate_retrieval(model, preprocess, source, model_name=task.name, truncate=True)
    return evaluate_zero_shot(model, preprocess, source, model_name=task.name, label_from=task.label_from)
