"""`diptych finetune`: a model goes on learning, on classes or pairs of one's own, and keeps what it knew."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    Assignments,
    Device,
    Json,
    LabelsFile,
    Model,
    TableOptions,
)
from diptych.cli.output import emit, say, say_left_out, table
from diptych.errors import UsageError
from diptych.training.methods import FinetuneMethod
from diptych.training.saving.layout import HELD_OUT
from diptych.weights.naming import DEFAULT_MODEL, with_activation
from diptych.wording import percent

if TYPE_CHECKING:
    from rich.console import Console

    from diptych.data.left_out import LeftOut
    from diptych.runs.finetune_figures import Finetuned
    from diptych.runs.finetune_run import FinetunePlan
    from diptych.training.settings import Recipe

PAGE = "finetune.html"  # in the folder of the run
_NOTHING = "none"  # of --keep
BEFORE = (
    "before: the model as it was loaded, asked by the names of the classes; start: what training began with; "
    "after: the result"
)


def finetune(
    data: Annotated[str, Parameter(help="Class folders, a table with a label column, shards; or pairs.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The folder of the run; runs/finetuned without it.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    method: Annotated[
        FinetuneMethod | None,
        Parameter(
            help="Without it: head for labels, lp-ft from 100 pictures a class on, contrastive for pairs."
        ),
    ] = None,
    head: Annotated[
        Literal["zero-shot", "probe", "zero"] | None,
        Parameter(help="Where the classifier begins: at the words of the classes, a linear probe, or zero."),
    ] = None,
    alpha: Annotated[
        str | None,
        Parameter(
            help="0..1: share of the fine-tuned weights in the result, the others being the model's own; or best."
        ),
    ] = None,
    several: Annotated[
        bool,
        Parameter(
            negative="", help="A picture may be of several classes: its tags, or labels with ; between."
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Data whose zero-shot accuracy should not be lost, and is measured; sample:test without it, or none.",
        ),
    ] = None,
    shift: Annotated[
        list[str] | None,
        Parameter(negative="", help="Other pictures of the same classes, to measure on and not to train on."),
    ] = None,
    labels_file: LabelsFile = None,
    label_from: Annotated[
        Literal["label", "caption"], Parameter(help="Where the class of a picture stands.")
    ] = "label",
    group_by: Annotated[
        str | None,
        Parameter(
            help="A column, or folder: images with one value of it stay on one side, held out or trained on. Without "
            "it: near copies of an image, such as the frames of a burst."
        ),
    ] = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    assignments: Assignments = (),
    seed: Annotated[int, Parameter(help="Of the order and the augmentation.")] = 0,
    resume: Annotated[bool, Parameter(negative="", help="Go on with the run that is in the folder.")] = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Print the recipe, which diptych train runs, and do nothing.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tune a model on your own classes or pairs; settings follow from the data, and a page says what was lost."""
    from diptych.runs.finetune_recipe import KEPT, FinetuneRequest  # noqa: PLC0415
    from diptych.runs.finetune_run import plan_finetuning  # noqa: PLC0415
    from diptych.runs.recipe_text import recipe_text  # noqa: PLC0415

    request = FinetuneRequest(
        data=data,
        model=with_activation(model, activation),
        method=method,
        head=head,
        alpha=_alpha(alpha),
        several=several,
        keep=(KEPT,) if keep is None else [place for place in keep if place != _NOTHING],
        shift=shift or (),
        labels_file=labels_file,
        label_from=label_from,
        group_by=group_by,
        columns=vars(columns),
        seed=seed,
    )
    plan = plan_finetuning(request, assignments, say)
    if dry_run:
        print(recipe_text(plan.recipe), end="")
        return
    _say_plan(plan)
    folder = out if out is not None else Path("runs") / "finetuned"
    found = finetune_with_page(
        plan.recipe, folder, resume=resume, device=device, examined=plan.found.left_out
    )
    report_finetuning(found, plan.recipe, folder, as_json)


def finetune_with_page(
    recipe: "Recipe",
    folder: Path,
    *,
    resume: bool,
    device: str,
    console: "Console | None" = None,
    examined: "LeftOut | None" = None,
) -> "Finetuned":
    """Fine-tune as a recipe says, and write the page into the folder of the run."""
    from diptych.atomic import write_text  # noqa: PLC0415
    from diptych.reports.finetune_page import page  # noqa: PLC0415
    from diptych.runs.evaluations import held_out_part  # noqa: PLC0415
    from diptych.runs.finetune_run import finetune_recipe  # noqa: PLC0415

    found = finetune_recipe(
        recipe, folder, resume=resume, device=device, console=console, examined=examined, say=say
    )
    held_out = held_out_part(recipe) if HELD_OUT in found.before else None
    write_text(folder / PAGE, page(folder, recipe, found, held_out))
    return found


def report_finetuning(found: "Finetuned", recipe: "Recipe", folder: Path, as_json: bool) -> None:
    """Print what was gained and lost."""
    say_left_out(found.left_out)
    if as_json:
        emit({**found.to_json(), "left_out": found.left_out.to_json(), "report": str(folder / PAGE)})
        return
    which = (
        f"the weights of step {found.step:,}" if found.step else "the start, which no step was better than"
    )
    total, patience = recipe.training.total_steps, recipe.evaluation.patience
    early = (
        f" of {total:,}: {patience} evaluations in a row found no better one"
        if found.result.step < total
        else ""
    )
    print(
        f"{found.method}, alpha {found.alpha:g}: {which}; training ended after step {found.result.step:,}{early}"
    )
    if found.before:
        columns = ("task", "metric", "before", "start", "after", "after less before")
        table(columns, _rows(found), right=(2, 3, 4, 5))
        print(BEFORE)
    if found.held_out is not None:
        print(found.held_out.describe())
    for loss in found.losses:
        print(f"alarm: {loss}")
    print(f"{folder / PAGE}")
    print(f"{found.result.checkpoint}: use it with {_use(folder, bool(found.classes))}")


def _rows(found: "Finetuned") -> list[Sequence[str]]:
    from diptych.runs.finetune_figures import headline, paired_difference  # noqa: PLC0415

    rows: list[Sequence[str]] = []
    for task, before in found.before.items():
        metric, old = headline(before)
        new = headline(found.after[task])[1]
        paired = paired_difference(task, before, found.after[task])
        around = (
            "" if paired is None else f" ({100 * paired.interval[0]:+.1f} to {100 * paired.interval[1]:+.1f})"
        )
        start = headline(found.start[task])[1]
        rows.append(
            (task, metric, percent(old), percent(start), percent(new), f"{100 * (new - old):+.1f}{around}")
        )
    return rows


def _use(folder: Path, has_classes: bool) -> str:
    """The command that uses the result: a model of pairs has no classes of its own."""
    if has_classes:
        return f"diptych classify IMAGE --model {folder}"
    return (
        f'diptych classify IMAGE --labels "cat,dog" --model {folder}, or diptych index IMAGES --index INDEX --model '
        f"{folder} and diptych search WORDS --index INDEX"
    )


def _say_plan(plan: "FinetunePlan") -> None:
    recipe, images, classes = plan.recipe, plan.found.images, len(plan.found.classes)
    settings, training = recipe.finetune, recipe.training
    assert settings is not None
    what = f"{images:,} pictures" + (f" of {classes:,} classes" if classes else "")
    held = f"{recipe.data.validation:.0%} held out" if recipe.data.validation else "nothing held out"
    say(
        f"{what}, {held}: {settings.method} for at most {training.total_steps:,} steps of "
        f"{training.batch_size}, learning "
        f"rate {recipe.optimizer.learning_rate:g}; --set changes any of it, --dry-run shows all of it"
    )
    if not recipe.data.validation:
        say(
            "warning: too few pictures to hold any out: nothing tells when to stop, nor how good the result is"
        )


def _alpha(text: str | None) -> float | Literal["best"] | None:
    if text is None or text == "best":
        return None if text is None else "best"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--alpha {text}: expected a share of the fine-tuned weights, 0..1, or best")
    return value
