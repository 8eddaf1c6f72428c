"""Fine-tune a model: examine the data, plan a recipe, prepare the start, run the engine, write the figures."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from diptych.atomic import write_text
from diptych.config import build, override, plain
from diptych.data.left_out import LeftOut
from diptych.data.sources.opening import open_source
from diptych.data.subsets.labelled import LabelFrom
from diptych.errors import SettingsError
from diptych.evaluation.zero_shot.class_labels import read_labels
from diptych.hardware import pick_device
from diptych.pretrained import full_name, load
from diptych.runs.evaluations import read_tasks, reports_of
from diptych.runs.finetune_data import DataSummary, examine
from diptych.runs.finetune_engine import run_prepared
from diptych.runs.finetune_figures import FinetuneResult, Reports
from diptych.runs.finetune_recipe import KEPT, FinetuneRequest, recipe_for
from diptych.runs.finetune_start import prepare
from diptych.training.methods import FinetuneMethod
from diptych.training.saving.layout import MODEL, START
from diptych.training.settings import Recipe
from diptych.training.unread import refuse_unread, without_unread
from diptych.weights.naming import DEFAULT_MODEL

FIGURES = "finetune.json"  # in the folder of the run


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


@dataclass(frozen=True)
class FinetunePlan:
    """A recipe for fine-tuning, and what was found in the data that it follows from."""

    recipe: Recipe
    found: DataSummary


def finetune(
    data: str | os.PathLike[str],
    out: str | Path,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    method: FinetuneMethod | None = None,
    head: Literal["zero-shot", "probe", "zero"] | None = None,
    alpha: float | Literal["best"] | None = None,
    several: bool = False,
    keep: Sequence[str] = (KEPT,),
    shift: Sequence[str] = (),
    labels_file: str | Path | None = None,
    label_from: LabelFrom = "label",
    group_by: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    assignments: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    say: Callable[[str], None] = _to_stderr,
) -> FinetuneResult:
    """Fine-tune a model on your own classes or pairs; the settings follow from the data (docs/finetuning.md).

    `diptych.write_finetune_page` shows the result as a page, which the command `diptych finetune` writes by itself.

    Args:
        data: class folders, a table with a label column, shards; or pairs.
        out: the folder of the run; the result is in `out`/model, the figures in `out`/finetune.json.
        model: a published name, or a checkpoint file or folder.
        method: None chooses head for few labels, lp-ft from 100 images a class, contrastive for pairs.
        head: where the classifier begins.
        alpha: share of the fine-tuned weights in the result, 0..1, or "best" by measurement.
        several: whether an image may have several classes.
        keep: data whose zero-shot accuracy is measured and should not be lost.
        shift: other images of the same classes, to measure on and not to train on.
        labels_file: the names of the classes in texts, and templates; see `read_labels`.
        label_from: where the class of an image is: its label, or its first caption.
        group_by: a column; images with one value of it are held out together. None groups near copies.
        columns: options of `open_source` for a table, such as {"label_column": "species"}.
        assignments: "section.key=value" each, over the planned recipe.
        seed: of the order and the augmentation.
        resume: go on with the run in `out`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps", as for `load`.
        say: gets the remarks and alarms, one line each; prints them on stderr if not given.

    Returns:
        The `recipe`, the `method` and `alpha` of the result, the `step` of its weights (0: no step was better than the
        start), the reports `before`, at the `start` and `after` by the names of the tasks, the `losses` (tasks that
        lost more than allowed), the `classes`, and the engine's `result` with the folder of the model (`checkpoint`).

    Raises:
        DataError: the data cannot be read, or has neither labels nor captions.
        SettingsError: the settings cannot be used, or `out` holds a run and `resume` is False.
        NotFiniteError: the loss was not a number for several steps in a row, or the weights became useless.

    Example:
        >>> import diptych
        >>> tuned = diptych.finetune("classes", "runs/mine", keep=(), assignments=["training.steps=4"], device="cpu")
        >>> tuned.classes, tuned.after["held_out"].scores.count
        (('blue', 'red'), 4)
    """
    request = FinetuneRequest(
        data=os.fspath(data),
        model=os.fspath(model),
        method=method,
        head=head,
        alpha=alpha,
        several=several,
        keep=keep,
        shift=shift,
        labels_file=labels_file,
        label_from=label_from,
        group_by=group_by,
        columns=columns or {},
        seed=seed,
    )
    plan = plan_finetuning(request, assignments, say)
    return finetune_recipe(
        plan.recipe, out, resume=resume, device=device, examined=plan.found.left_out, say=say
    )


def plan_finetuning(
    request: FinetuneRequest, assignments: Sequence[str] = (), say: Callable[[str], None] = _to_stderr
) -> FinetunePlan:
    """Examine the data, and plan the recipe that `finetune` runs; nothing is trained or written.

    Raises:
        DataError, SettingsError: the data or the settings cannot be used.
    """
    classes = read_labels(request.labels_file) if request.labels_file is not None else None
    source = open_source(request.data, **request.columns)
    found = examine(source, label_from=request.label_from, several=request.several, method=request.method)
    for remark in found.remarks:
        say(f"warning: {remark}")
    tower = load(request.model, device="cpu")[0].visual
    planned = recipe_for(request, found, sum(value.numel() for value in tower.parameters()), classes)
    values = override(plain(planned), tuple(assignments))
    written = override(
        {} if request.head is None else {"finetune": {"head": request.head}}, tuple(assignments)
    )
    refuse_unread(written, values, "finetune")
    recipe = build(Recipe, without_unread(values, values), "finetune")
    read_tasks(recipe)  # an unknown setting is an error now
    return FinetunePlan(recipe, found)


def finetune_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    examined: LeftOut | None = None,
    say: Callable[[str], None] = _to_stderr,
) -> FinetuneResult:
    """Fine-tune as a recipe with `[finetune]` says.

    Args:
        recipe: the resolved settings.
        out: the folder of the run.
        resume: go on with the run in `out`.
        device: as for `finetune`.
        console: where the engine prints its progress; stderr if None.
        examined: what was left out when the data were examined, which may be more than the run has read.
        say: gets the remarks and alarms, one line each.

    Raises:
        DataError, SettingsError: the data or the settings cannot be used; torchrun started several processes.
        NotFiniteError: the weights became useless.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("fine-tuning runs in one process; start it without torchrun")
    folder = Path(out)
    read_tasks(recipe)  # an unknown setting is an error before anything is written
    prepared = prepare(recipe, folder, say)
    found = run_prepared(
        prepared,
        folder,
        measure=reports_of(prepared),
        resume=resume,
        device=pick_device(device),
        console=console,
        say=say,
    )
    found = _with_names(found, recipe, folder)
    write_text(folder / FIGURES, json.dumps(found.to_json(), indent=2) + "\n")
    if examined is not None and examined.total >= found.left_out.total:
        return replace(found, left_out=examined)
    return found


def _with_names(found: FinetuneResult, recipe: Recipe, folder: Path) -> FinetuneResult:
    """Return a result with the recipe that was asked for, and in each report the name of the model that it is about."""
    loaded, start, product = (
        full_name(place) for place in (recipe.model.init, folder / START, folder / MODEL)
    )

    def of(model: str, reports: Reports) -> Reports:
        return {task: replace(report, model=model) for task, report in reports.items()}

    return replace(
        found,
        recipe=recipe,
        before=of(loaded, found.before),
        start=of(start, found.start),
        after=of(product, found.after),
        curve=tuple((share, of(f"{product} at alpha {share:g}", reports)) for share, reports in found.curve),
    )
