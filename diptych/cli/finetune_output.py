"""What `diptych finetune` prints and the page it writes; `train` and `sweep` use them for recipes with `[finetune]`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.output import emit, say, say_left_out, table
from diptych.wording import percent, points

if TYPE_CHECKING:
    from rich.console import Console

    from diptych.data.left_out import LeftOut
    from diptych.runs.finetune_figures import FinetuneResult
    from diptych.runs.finetune_run import FinetunePlan
    from diptych.training.settings import Recipe

BEFORE = (
    "before: the model as it was loaded, asked by the names of the classes; start: what training began with; "
    "after: the result"
)


def finetune_with_page(
    recipe: "Recipe",
    folder: Path,
    *,
    resume: bool,
    device: str,
    console: "Console | None" = None,
    examined: "LeftOut | None" = None,
) -> "FinetuneResult":
    """Fine-tune as a recipe says, and write the page into the folder of the run."""
    from diptych.reports.finetune_page import write_finetune_page
    from diptych.runs.finetune_run import finetune_recipe

    found = finetune_recipe(
        recipe, folder, resume=resume, device=device, console=console, examined=examined, say=say
    )
    write_finetune_page(found, folder)
    return found


def report_finetuning(found: "FinetuneResult", folder: Path, as_json: bool) -> None:
    """Print what was gained and lost."""
    from diptych.reports.finetune_page import PAGE

    say_left_out(found.left_out)
    if as_json:
        emit({**found.to_json(), "left_out": found.left_out.to_json(), "report": str(folder / PAGE)})
        return
    which = (
        f"the weights of step {found.step:,}" if found.step else "the start, which no step was better than"
    )
    total, patience = found.recipe.training.total_steps, found.recipe.evaluation.patience
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


def _rows(found: "FinetuneResult") -> list[Sequence[str]]:
    from diptych.runs.finetune_figures import task_changes

    rows: list[Sequence[str]] = []
    for one in task_changes(found):
        low, high = one.paired.interval if one.paired else (0.0, 0.0)
        around = f" ({points(low)} to {points(high)})" if one.paired else ""
        shares = map(percent, (one.before, one.start, one.after))
        rows.append((one.task, one.metric, *shares, f"{points(one.after - one.before)}{around}"))
    return rows


def _use(folder: Path, has_classes: bool) -> str:
    """Return the command that uses the result; a model of pairs has no classes of its own."""
    if has_classes:
        return f"diptych classify IMAGE --model {folder}"
    return (
        f'diptych classify IMAGE --labels "cat,dog" --model {folder}, or diptych index IMAGES --index INDEX --model '
        f"{folder} and diptych search WORDS --index INDEX"
    )


def say_plan(plan: "FinetunePlan") -> None:
    """Say what will be trained, and how long."""
    recipe, images, classes = plan.recipe, plan.found.images, len(plan.found.classes)
    settings, training = recipe.finetune, recipe.training
    assert settings is not None
    what = f"{images:,} images" + (f" of {classes:,} classes" if classes else "")
    held = f"{recipe.data.validation:.0%} held out" if recipe.data.validation else "nothing held out"
    say(
        f"{what}, {held}: {settings.method} for at most {training.total_steps:,} steps of "
        f"{training.batch_size}, learning "
        f"rate {recipe.optimizer.learning_rate:g}; --set changes any of it, --dry-run shows all of it"
    )
    if not recipe.data.validation:
        say("warning: too few images to hold any out: nothing tells when to stop, nor how good the result is")
