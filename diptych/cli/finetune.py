"""`diptych finetune`: a model goes on learning, on classes or pairs of one's own, and keeps what it knew."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.inputs import open_data, templates_for
from diptych.cli.options import NO_TABLE_OPTIONS, Activation, Device, Json, LabelsFile, Model, TableOptions
from diptych.cli.output import emit, say, say_left_out, table
from diptych.cli.train import Assignments
from diptych.errors import UsageError
from diptych.runs.evaluations import evaluation_of, held_out_part, reports_of
from diptych.training.methods import FinetuneMethod
from diptych.training.saving.layout import HELD_OUT
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from rich.console import Console

    from diptych.data.left_out import LeftOut
    from diptych.runs.finetune_run import Finetuned
    from diptych.training.settings import Recipe

FIGURES, PAGE = "finetune.json", "finetune.html"  # in the folder of the run
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
    from diptych.config import build, override, plain  # noqa: PLC0415
    from diptych.evaluation.zero_shot.class_labels import read_labels  # noqa: PLC0415
    from diptych.hardware import pick_device  # noqa: PLC0415
    from diptych.pretrained import load  # noqa: PLC0415
    from diptych.runs.finetune_data import examine  # noqa: PLC0415
    from diptych.runs.finetune_recipe import KEPT, Asked, recipe_for  # noqa: PLC0415
    from diptych.runs.recipe_text import recipe_text  # noqa: PLC0415
    from diptych.training.settings import Recipe  # noqa: PLC0415
    from diptych.training.unread import refuse_unread  # noqa: PLC0415
    from diptych.weights.naming import with_activation  # noqa: PLC0415

    classes = read_labels(labels_file) if labels_file is not None else None
    given = classes.templates if classes is not None else None
    asked = Asked(
        data=data,
        init=with_activation(model, activation),
        method=method,
        head=head,
        alpha=_alpha(alpha),
        words={} if classes is None else dict(zip(classes.names, classes.phrases, strict=True)),
        templates=given or templates_for(model),
        several=several,
        keep=(KEPT,) if keep is None else [place for place in keep if place != _NOTHING],
        shift=shift or (),
        label_from=label_from,
        group_by=group_by,
        seed=seed,
        **vars(columns),
    )
    source = open_data(data, columns)
    found = examine(source, label_from=label_from, several=several, method=method)
    for remark in found.remarks:
        say(f"warning: {remark}")
    tower = load(asked.init, device="cpu")[0].visual
    recipe = recipe_for(asked, found, sum(value.numel() for value in tower.parameters()))
    recipe = build(Recipe, override(plain(recipe), assignments), "finetune")
    written = override({} if head is None else {"finetune": {"head": head}}, assignments)
    refuse_unread(written, recipe, "finetune")
    if dry_run:
        print(recipe_text(recipe), end="")
        return
    _say_plan(recipe, found.images, len(found.classes))
    folder = out if out is not None else Path("runs") / "finetuned"
    run_and_tell(
        recipe, folder, resume=resume, device=pick_device(device), as_json=as_json, examined=found.left_out
    )


def run_recipe(
    recipe: "Recipe", folder: Path, resume: bool, device: str, console: "Console | None" = None
) -> None:
    """Run a recipe, whether it trains or fine-tunes, as a trial of a sweep."""
    from diptych.training.engine import train  # noqa: PLC0415

    if recipe.finetune is None:
        train(recipe, folder, resume=resume, device=device, evaluate=evaluation_of(recipe), console=console)
    else:
        _run(recipe, folder, resume=resume, device=device, console=console)


def run_and_tell(
    recipe: "Recipe",
    folder: Path,
    *,
    resume: bool,
    device: str,
    as_json: bool,
    examined: "LeftOut | None" = None,
) -> None:
    """Fine-tune as a recipe says, and print what was gained and lost.

    examined: what was left out when the data were examined: more than the run has read, unless it read pictures that
    were not decoded then.
    """
    from diptych.data.left_out import all_left_out  # noqa: PLC0415

    found = _run(recipe, folder, resume=resume, device=device)
    held_out = [report.skipped for task, report in found.before.items() if task == HELD_OUT]
    met = all_left_out([found.result.left_out, *held_out])
    left_out = met if examined is None or met.total > examined.total else examined
    say_left_out(left_out)
    if as_json:
        emit({**found.to_json(), "left_out": left_out.to_json(), "report": str(folder / PAGE)})
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


def _run(
    recipe: "Recipe", folder: Path, *, resume: bool, device: str, console: "Console | None" = None
) -> "Finetuned":
    from diptych.atomic import write_text  # noqa: PLC0415
    from diptych.errors import SettingsError  # noqa: PLC0415
    from diptych.reports.finetune_page import page  # noqa: PLC0415
    from diptych.runs.finetune_run import finetune as run  # noqa: PLC0415
    from diptych.runs.finetune_start import prepare  # noqa: PLC0415

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("fine-tuning runs in one process; start it without torchrun")
    prepared = prepare(recipe, folder, say)
    found = run(
        prepared,
        folder,
        measure=reports_of(prepared),
        resume=resume,
        device=device,
        console=console,
        say=say,
    )
    held_out = held_out_part(prepared) if "held_out" in found.before else None
    write_text(folder / FIGURES, json.dumps(found.to_json(), indent=2) + "\n")
    write_text(folder / PAGE, page(folder, recipe, found, held_out))
    return found


def _rows(found: "Finetuned") -> list[Sequence[str]]:
    from diptych.runs.finetune_run import headline, paired_difference  # noqa: PLC0415

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


def _say_plan(recipe: "Recipe", images: int, classes: int) -> None:
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
