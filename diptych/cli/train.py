"""`diptych train`: pre-train with a recipe."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.finetune_output import finetune_with_page, report_finetuning
from diptych.cli.options import Assignments, Device, Json
from diptych.cli.output import emit, say, say_left_out
from diptych.training.saving.layout import BEST

if TYPE_CHECKING:
    from diptych.training.engine import Result

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
    from diptych.hardware import pick_device
    from diptych.runs.training_run import train as run
    from diptych.training.recipes import load_recipe

    settings = load_recipe(recipe, assignments)
    folder = out if out is not None else Path("runs") / Path(recipe).stem
    chosen = pick_device(device)
    leads = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one reports
    if leads:
        say(f"training on {chosen}, into {folder}")
    if settings.finetune is not None:
        found = finetune_with_page(settings, folder, resume=resume, device=chosen)
        report_finetuning(found, folder, as_json)
        return
    result = run(settings, folder, resume=resume, device=chosen)
    if leads:
        _report(result, folder, as_json)


def _report(result: "Result", folder: Path, as_json: bool) -> None:
    from diptych.config import plain

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
