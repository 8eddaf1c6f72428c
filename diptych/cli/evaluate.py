"""`diptych evaluate`: one task, one model, one dataset; a verb for each entry of `diptych.evaluation.tasks.TASKS`."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cyclopts import App

from diptych.cli.evaluate_datasets import Root
from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Device,
    Json,
    KeepNothing,
    Model,
    Precision,
    TableOptions,
    example,
)
from diptych.cli.output import emit, progress, say, say_left_out
from diptych.cli.task_options import options_of, values_of
from diptych.evaluation.tasks import TASKS, EvaluationTask, TaskSettings
from diptych.weights.naming import DEFAULT_MODEL

if TYPE_CHECKING:
    from diptych.distributed import World
    from diptych.evaluation.task_report import Report


def evaluate_app() -> App:
    """Return `diptych evaluate` as a cyclopts application: a verb for each task, and those of many results."""
    app = App(
        name="evaluate", help="Measure a model on a dataset, with chance beside and a confidence interval."
    )
    for name, task in TASKS.items():
        app.command(
            verb(name, task),
            name=name,
            help=f"{task.summary}\n\nNeeds {task.needs}.",
            help_epilogue=example(task.example),
        )
    app.command(
        "diptych.cli.evaluate_calibrate:calibrate",
        name="calibrate",
        help="Find the temperature and the none-of-these threshold that suit your labelled images.",
        help_epilogue=example("diptych evaluate calibrate --data birds/ --none-data other/ --out birds.json"),
    )
    app.command(
        "diptych.cli.evaluate_all:evaluate_all",
        name="all",
        help="Measure a model at every task of a suite, and write a report with tables, curves and mistakes.",
        help_epilogue=example("diptych evaluate all --model runs/first --out runs/first/evaluation"),
    )
    app.command(
        "diptych.cli.evaluate_datasets:datasets",
        name="datasets",
        help="List the published datasets: metric, sizes, which are here, and where the others go.",
        help_epilogue="Example: diptych evaluate datasets --root data/",
    )
    app.command(
        "diptych.cli.evaluate_robustness:robustness",
        name="robustness",
        help="Effective and relative robustness under distribution shifts, from a table of accuracies.",
        help_epilogue="Example: diptych evaluate robustness accuracies.csv --plot robustness.svg",
    )
    return app


def verb(name: str, task: EvaluationTask) -> Callable[..., None]:
    """Return the verb of a task, whose options are the task's settings and those of `_evaluate`."""
    own = options_of(task.settings)
    shared = [
        option.replace(default=inspect.Parameter.empty)
        if option.name == "model" and not task.default_model
        else option
        for option in inspect.signature(_evaluate).parameters.values()
        if option.kind is inspect.Parameter.KEYWORD_ONLY and (task.words or option.name != "no_cache")
    ]
    names = {option.name for option in own}

    def run(**given: Any) -> None:
        columns = given.pop("columns", NO_TABLE_OPTIONS)
        settings = {option: given.pop(option) for option in [*given] if option in names}
        asked = task.settings(name=name, task=name, **values_of(task.settings, settings), **vars(columns))
        _evaluate(asked, **given)

    options = [*own, *shared]
    # cyclopts reads both.
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _evaluate(
    task: TaskSettings,
    *,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    root: Root = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model at a task, and print the report. columns: are among the task's settings by now."""
    from functools import partial

    from diptych.cli.machine import load_model
    from diptych.evaluation.job import Context, Subject, open_data, prepare
    from diptych.evaluation.zero_shot.classifier_cache import builder
    from diptych.evaluation.zero_shot.prompts import templates_for

    job = prepare(task, Context(open=partial(open_data, root=root), templates=templates_for(model)))
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)
        subject = Subject(
            model=network,
            preprocess=preprocess,
            name=name,
            build=builder(preprocess, keep=not no_cache),
            batch_size=batch_size,
        )
        with progress("evaluating", job.images + job.fits) as advance:
            report = job.report(subject, advance)
        if here.leads:
            show(report, as_json)


@contextlib.contextmanager
def everybody(device: str) -> "Iterator[World]":
    """Enter all processes that torchrun started, or this one alone; before a model is loaded onto a GPU."""
    from diptych.distributed import processes
    from diptych.hardware import pick_device

    with processes(pick_device(device)) as here:
        yield here


def show(report: "Report", as_json: bool) -> None:
    """Print a report, as JSON or as a table; what was left out, and the report's notes, go to stderr."""
    say_left_out(report.left_out)
    if as_json:
        emit(report.to_json())
    else:
        from rich.console import Console

        Console(highlight=False).print(report.table())
    for note in report.notes:
        say(note)


app = evaluate_app()
