"""`diptych sweep`: a recipe with many settings, and which were best."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.finetune_output import finetune_with_page
from diptych.cli.options import Assignments, Device, Json
from diptych.cli.output import emit, say
from diptych.cli.sweep_options import NO_SWEEP_OPTIONS, SweepOptions
from diptych.cli.train import RecipePlace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from diptych.runs.sweep_folder import Trial
    from diptych.runs.sweep_plan import Goal, Sweep
    from diptych.training.settings import Recipe

_SHOWN_ERROR = 60  # characters of an error in the table; sweep.json has all of it


def sweep(
    recipe: RecipePlace,
    /,
    *,
    plan: SweepOptions = NO_SWEEP_OPTIONS,
    assignments: Assignments = (),
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], help="The folder of the sweep; runs/NAME-sweep without it."),
    ] = None,
    keep: Annotated[
        Literal["all", "best"], Parameter(help="best: delete the weights of the others; their logs stay.")
    ] = "all",
    retry: Annotated[bool, Parameter(negative="", help="Run failed trials again.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Train a recipe with many settings and list which were best. The same command goes on with a sweep."""
    from rich.console import Console

    from diptych.hardware import pick_device
    from diptych.runs.sweep_run import run_sweep

    asked = plan.sweep(recipe, assignments)
    folder = out if out is not None else Path("runs") / f"{Path(recipe).stem}-sweep"
    chosen = pick_device(device)
    say(f"sweep on {chosen}, into {folder}; if it is stopped, the same command goes on with it")
    terminal = Console(stderr=True)
    found = run_sweep(
        asked,
        folder,
        device=chosen,
        runner=_run,
        keep_best_only=keep == "best",
        retry=retry,
        # The bar of each run on a terminal; elsewhere a line a trial is enough, and the runs have their own logs.
        console=terminal if terminal.is_terminal else Console(stderr=True, quiet=True),
        tell=lambda trial, count: say(f"trial {trial.number + 1}/{count}: {_told(trial, asked.metric)}"),
    )
    return _report(found, asked, folder, as_json)


def _report(found: Sequence["Trial"], asked: "Sweep", folder: Path, as_json: bool) -> int:
    """Print the trials, the best first. Return the exit code: 1 if none is done."""
    done = [trial for trial in found if trial.status == "done"]
    best = folder / done[0].folder if done else None
    if as_json:
        emit(
            {
                "metric": asked.metric,
                "goal": asked.goal,
                "best": None if best is None else str(best),
                "trials": [_json(trial, folder) for trial in found],
            }
        )
    else:
        _print(found, asked.metric, asked.goal, best)
    return 0 if done else 1


def _run(recipe: "Recipe", folder: Path, resume: bool, device: str, console: "Console | None") -> None:
    from diptych.runs.training_run import train

    if recipe.finetune is not None:
        finetune_with_page(recipe, folder, resume=resume, device=device, console=console)
    else:
        train(recipe, folder, resume=resume, device=device, console=console)


def _print(found: Sequence["Trial"], metric: str, goal: "Goal", best: Path | None) -> None:
    from rich.console import Console

    Console(highlight=False).print(_table(found, metric, goal))
    if best is not None:
        print(f"best: {best}")


def _told(trial: "Trial", metric: str) -> str:
    settings = ", ".join(f"{key} {shown(value)}" for key, value in trial.settings.items())
    if trial.status == "failed":
        return f"{settings}: failed: {trial.error}"
    return f"{settings}: {metric} {shown(trial.metrics[metric])}"


def _table(trials: Sequence["Trial"], metric: str, goal: "Goal") -> "Table":
    from rich.table import Table
    from rich.text import Text

    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    others = [name for name in ("loss", "accuracy") if name != metric]
    table = Table(title=f"sorted by {metric}, {goal}d", title_justify="left")
    table.add_column("trial", justify="right")
    for key in keys:
        table.add_column(_short(key, keys), justify="right")
    for name in (metric, *others, "minutes"):
        table.add_column(name, justify="right")
    failed = any(trial.status == "failed" for trial in trials)
    if failed:
        table.add_column("failed because", overflow="fold")
    for trial in trials:
        measured = [shown(trial.metrics[name]) if name in trial.metrics else "" for name in (metric, *others)]
        minutes = f"{trial.metrics['seconds'] / 60:.1f}" if "seconds" in trial.metrics else ""
        error = trial.error or ""
        cut = error if len(error) <= _SHOWN_ERROR else f"{error[: _SHOWN_ERROR - 3]}..."
        table.add_row(
            str(trial.number),
            *(Text(shown(trial.settings.get(key, ""))) for key in keys),
            *measured,
            minutes,
            *([Text(cut)] if failed else []),
        )
    return table


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a key, if no other key has the same."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _json(trial: "Trial", folder: Path) -> dict[str, object]:
    return {
        "number": trial.number,
        "folder": str(folder / trial.folder),
        "settings": dict(trial.settings),
        "status": trial.status,
        "metrics": dict(trial.metrics),
        "error": trial.error,
    }


def shown(value: object) -> str:
    """Return a setting or a metric in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
