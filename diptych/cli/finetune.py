"""`diptych finetune`: a model goes on learning, on classes or pairs of one's own, and keeps what it knew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from diptych.cli.finetune_output import finetune_with_page, report_finetuning, say_plan
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
from diptych.cli.output import say
from diptych.errors import UsageError
from diptych.training.methods import FinetuneMethod
from diptych.weights.naming import DEFAULT_MODEL, with_activation

_NOTHING = "none"  # of --keep


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """How a model is fine-tuned; what is not given follows from the data."""

    method: Annotated[
        FinetuneMethod | None,
        Parameter(
            help="Without it: head for labels, lp-ft from 100 images a class on, contrastive for pairs."
        ),
    ] = None
    head: Annotated[
        Literal["zero-shot", "probe", "zero"] | None,
        Parameter(help="Where the classifier begins: at the words of the classes, a linear probe, or zero."),
    ] = None
    alpha: Annotated[
        str | None,
        Parameter(
            help="0..1: share of the fine-tuned weights in the result, the others being the model's own; or best."
        ),
    ] = None
    several: Annotated[
        bool,
        Parameter(negative="", help="An image may have several classes: its tags, or labels with ; between."),
    ] = False
    keep: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Data whose zero-shot accuracy should not be lost, and is measured; sample:test without it, or none.",
        ),
    ] = None
    shift: Annotated[
        list[str] | None,
        Parameter(negative="", help="Other images of the same classes, to measure on and not to train on."),
    ] = None
    labels_file: LabelsFile = None
    label_from: Annotated[Literal["label", "caption"], Parameter(help="Where the class of an image is.")] = (
        "label"
    )
    group_by: Annotated[
        str | None,
        Parameter(
            help="A column, or folder: images with one value of it stay on one side, held out or trained on. Without "
            "it: near copies of an image, such as the frames of a burst."
        ),
    ] = None


NO_FINETUNE_OPTIONS = FinetuneOptions()


def finetune(
    data: Annotated[str, Parameter(help="Class folders, a table with a label column, shards; or pairs.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="The folder of the run; runs/finetuned without it.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    options: FinetuneOptions = NO_FINETUNE_OPTIONS,
    columns: TableOptions = NO_TABLE_OPTIONS,
    assignments: Assignments = (),
    seed: Annotated[int, Parameter(help="Seed of the order and the augmentation.")] = 0,
    resume: Annotated[bool, Parameter(negative="", help="Go on with the run that is in the folder.")] = False,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Print the recipe, which diptych train runs, and do nothing.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tune a model on your own classes or pairs; settings follow from the data, and a page says what was lost."""
    from diptych.runs.finetune_recipe import KEPT, FinetuneRequest
    from diptych.runs.finetune_run import plan_finetuning
    from diptych.runs.recipe_text import recipe_text

    request = FinetuneRequest(
        data=data,
        model=with_activation(model, activation),
        method=options.method,
        head=options.head,
        alpha=_alpha(options.alpha),
        several=options.several,
        keep=(KEPT,) if options.keep is None else [place for place in options.keep if place != _NOTHING],
        shift=options.shift or (),
        labels_file=options.labels_file,
        label_from=options.label_from,
        group_by=options.group_by,
        columns=vars(columns),
        seed=seed,
    )
    plan = plan_finetuning(request, assignments, say)
    if dry_run:
        print(recipe_text(plan.recipe), end="")
        return
    say_plan(plan)
    folder = out if out is not None else Path("runs") / "finetuned"
    found = finetune_with_page(
        plan.recipe, folder, resume=resume, device=device, examined=plan.found.left_out
    )
    report_finetuning(found, folder, as_json)


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
