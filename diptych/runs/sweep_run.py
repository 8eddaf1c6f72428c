"""Run the trials of a sweep one after another; a sweep that was stopped goes on where it was."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from diptych.config import plain
from diptych.errors import DiptychError, SettingsError
from diptych.runs.evaluations import read_tasks
from diptych.runs.run_summary import STEP_KEYS, SWEEP, read_run
from diptych.runs.sweep_folder import Trial, ranked, read_sweep, write_sweep
from diptych.runs.sweep_plan import Sweep
from diptych.runs.sweep_tpe import propose
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.saving.layout import CHECKPOINTS, RECIPE, RESULTS
from diptych.training.saving.resuming import as_written_now
from diptych.training.settings import Recipe

# A recipe, the folder of its run, whether to go on with it, the device, and where to tell about it.
Runner = Callable[[Recipe, Path, bool, str, Console | None], object]


def engine_alone(recipe: Recipe, folder: Path, resume: bool, device: str, console: Console | None) -> None:
    """Train as the recipe says, and measure nothing on the way."""
    train(recipe, folder, resume=resume, device=device, console=console)


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    device: str = "cpu",
    runner: Runner = engine_alone,
    keep_best_only: bool = False,
    retry: bool = False,
    console: Console | None = None,
    tell: Callable[[Trial, int], None] = lambda trial, count: None,
) -> list[Trial]:
    """Run what is left of a sweep, and return its trials, the best first and the failed last.

    runner: what runs a trial: the engine, or the engine with what is before and after it, such as measurements.
    keep_best_only: delete the weights of every trial that is not the best so far; their logs stay.
    retry: run failed trials again; otherwise a failure is recorded and stays.
    tell: called with each trial as it ends, and with the number of all.

    A sweep that was killed goes on when it is called again: trials that are done are passed over, and the one that
    was running resumes from its last checkpoint. Raises SettingsError, before anything is run, where the settings
    of a trial cannot be used, and where the folder has a sweep of another recipe, other ranges or another seed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("a sweep runs its trials in one process; start it without torchrun")
    folder = Path(out)
    planned = sweep.plan()
    _check_metric(sweep.metric, map(sweep.recipe_of, planned or [*sweep.corners(), propose(sweep, ())]))
    count = sweep.trials or len(planned)
    trials = _begin(folder, sweep, planned)
    for number in range(count):
        if number == len(trials):  # not planned, but proposed from the trials so far; kept before it runs
            trials.append(Trial(number, propose(sweep, trials)))
            _write(folder, sweep, trials)
        if trials[number].status == "done" or (trials[number].status == "failed" and not retry):
            continue
        trials[number] = _run(trials[number], sweep, folder, device=device, runner=runner, console=console)
        _write(folder, sweep, trials)
        tell(trials[number], count)
        if keep_best_only:
            _delete_weights(folder, ranked(trials, sweep.metric, sweep.goal)[1:])
    return ranked(trials[:count], sweep.metric, sweep.goal)


def _run(
    trial: Trial,
    sweep: Sweep,
    folder: Path,
    *,
    device: str,
    runner: Runner,
    console: Console | None,
) -> Trial:
    run = folder / trial.folder
    started = (run / RECIPE).is_file()
    if run.exists() and not started:
        shutil.rmtree(run)  # killed before its first file was whole
    try:
        runner(sweep.recipe_of(trial.settings), run, started, device, console)
        metrics = read_run(run).final()
    except Exception as error:
        # Whatever it was, it is this trial's result: the sweep must not lose the others to it.
        what = str(error) if isinstance(error, DiptychError) else f"{type(error).__name__}: {error}"
        return replace(trial, status="failed", error=" ".join(what.split()))
    if sweep.metric not in metrics:
        named = ", ".join(sorted(metrics))
        return replace(trial, status="failed", error=f"no {sweep.metric!r} in its log, which has {named}")
    return replace(trial, status="done", metrics=metrics, error=None)


def _begin(folder: Path, sweep: Sweep, planned: Sequence[Mapping[str, Any]]) -> list[Trial]:
    trials = [Trial(number, settings) for number, settings in enumerate(planned)]
    if not (folder / SWEEP).exists():
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder}: is a folder with other files; name a new folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, sweep, trials)
        return trials
    known = read_sweep(folder)
    before, now = json.loads((folder / SWEEP).read_text("utf-8"))["asked"], _fixed_settings(sweep)
    before["recipe"] = json.loads(json.dumps(as_written_now(before["recipe"], folder / SWEEP)))
    changed = [name for name in now | before if now.get(name) != before.get(name)]
    if changed:
        raise SettingsError(
            f"{folder}: holds a sweep with another {' and '.join(changed)}; "
            "give the same to go on with it, or name another folder with --out"
        )
    # More trials may be asked for than before; with fewer, the others stay as they are.
    return [*known, *trials[len(known) :]]


def _write(folder: Path, sweep: Sweep, trials: Sequence[Trial]) -> None:
    write_sweep(folder, _fixed_settings(sweep), sweep.metric, sweep.goal, trials)


def _fixed_settings(sweep: Sweep) -> dict[str, Any]:
    """Return what must stay the same for a sweep to go on, as JSON gives it back."""
    asked = {
        "recipe": plain(load_recipe(sweep.recipe, sweep.assignments)),
        "grid": {grid.key: list(grid.values) for grid in sweep.grids},
        "random": {range_.key: [range_.low, range_.high] for range_ in sweep.ranges},
        "seed": sweep.seed,
    }
    if sweep.sampler != "random":  # not said otherwise, so that sweeps from before there was a choice go on
        asked["sampler"] = sweep.sampler
    return dict(json.loads(json.dumps(asked)))


def _check_metric(metric: str, recipes: Iterable[Recipe]) -> None:
    for recipe in recipes:
        tasks = [task.name for task in read_tasks(recipe)]
        if metric not in STEP_KEYS and not any(metric.startswith(f"{name}_") for name in tasks):
            named = (
                ", ".join(f"{name}_..." for name in tasks) or "none: the recipe has no [[evaluation.tasks]]"
            )
            raise SettingsError(
                f"--metric {metric!r} will not be in the log; expected loss, accuracy, or one of an "
                f"evaluation ({named})"
            )


def _delete_weights(folder: Path, others: Iterable[Trial]) -> None:
    for trial in others:
        for name in (CHECKPOINTS, *RESULTS):
            shutil.rmtree(folder / trial.folder / name, ignore_errors=True)
