"""`diptych evaluate all`: a suite of tasks for one model, and the report that people look at."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.evaluate_datasets import Root
from diptych.cli.options import Activation, BatchSize, Device, Json, KeepNothing, Model, Precision
from diptych.cli.output import emit, progress, say, say_left_out, table
from diptych.weights.naming import DEFAULT_MODEL

if TYPE_CHECKING:
    from diptych.evaluation.suite.suite_files import Result
    from diptych.evaluation.suite.suite_run import SuiteSubject
    from diptych.evaluation.tasks import TaskSettings
    from diptych.reports.page_parts import PageImage


def evaluate_all(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The folder of the results.")],
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    suite: Annotated[
        Path | None,
        Parameter(
            help="A TOML file of tasks; without it, the bundled sample and what is found under the root."
        ),
    ] = None,
    root: Root = None,
    batch_size: BatchSize = 64,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> int:
    """Measure a model at every task of a suite, and write a report with tables, curves and mistakes.

    The same command goes on where it was stopped, and keeps what is done. Tasks that fail do not stop the others.
    Under torchrun all processes share the work.
    """
    from diptych.atomic import write_text
    from diptych.distributed import processes
    from diptych.evaluation.suite.suite_run import run_suite
    from diptych.evaluation.suite.suite_tasks import default_suite, read_suite
    from diptych.hardware import pick_device
    from diptych.reports.suite_markdown import markdown
    from diptych.reports.suite_page import page
    from diptych.weights.naming import with_activation

    tasks = default_suite(root) if suite is None else read_suite(suite)
    with processes(pick_device(device)) as here:
        subject = dataclasses.replace(
            _subject(
                with_activation(model, activation), device, precision, leads=here.leads, keep=not no_cache
            ),
            batch_size=batch_size,
            root=root,
        )
        results = run_suite(tasks, subject, out, _Terminal(len(tasks)))
        if here.leads:
            images = {
                task.name: _mistakes(task, subject, result)
                for task, result in zip(tasks, results, strict=True)
            }
            write_text(out / "report.md", markdown(results, subject.name))
            write_text(out / "report.html", page(subject.name, results, images))
            _tell(subject.name, out, results, as_json)
    return 1 if any(result.error is not None for result in results) else 0


class _Terminal:
    """Tells on stderr how a suite goes on."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._done = 0

    @contextlib.contextmanager
    def begin(self, task: "TaskSettings", steps: int) -> "Iterator[Callable[[int], None]]":
        with progress(f"{self._done + 1}/{self._tasks} {task.name}", steps) as advance:
            yield advance

    def end(self, result: "Result", *, kept: bool) -> None:
        self._done += 1
        if result.error is not None:
            what = f"failed: {result.error}"
        else:
            what = "is there already, and nothing has changed" if kept else f"done in {result.seconds:.1f} s"
        notes: tuple[str, ...] = ()
        if result.report is not None and not kept:
            say_left_out(result.report.left_out)
            notes = result.report.notes
        say(f"{self._done}/{self._tasks} {result.name}: {'; '.join([what, *notes])}")


def _subject(model: str, device: str, precision: str, *, leads: bool, keep: bool) -> "SuiteSubject":
    """The model; of several processes, the first one alone says what was chosen."""
    from diptych.cli.machine import choose, load_model
    from diptych.evaluation.suite.suite_run import SuiteSubject
    from diptych.evaluation.zero_shot.classifier_cache import builder
    from diptych.evaluation.zero_shot.prompts import templates_for
    from diptych.hardware import pick_device, pick_precision
    from diptych.pretrained import fingerprint

    if leads:
        place, exact = choose(device, precision)
    else:
        place = pick_device(device)
        exact = pick_precision(precision, place)
    name, network, preprocess = load_model(model, place, exact)
    return SuiteSubject(
        model=network,
        preprocess=preprocess,
        name=name,
        fingerprint=fingerprint(network, preprocess),
        precision=exact,
        templates=templates_for(name),
        build=builder(preprocess, keep=keep),
    )


def _mistakes(task: "TaskSettings", subject: "SuiteSubject", result: "Result") -> "list[PageImage]":
    from diptych.evaluation.job import prepare
    from diptych.evaluation.suite.suite_rows import outcomes_in_words
    from diptych.reports.mistakes import draw_mistakes

    outcomes = outcomes_in_words(result)
    if outcomes is None or not outcomes.positions:
        return []
    return draw_mistakes(lambda: prepare(task, subject.context).sources[0], outcomes)


def _tell(model: str, out: Path, results: "Sequence[Result]", as_json: bool) -> None:
    from diptych.evaluation.suite.suite_rows import headline_rows
    from diptych.wording import metric_interval, metric_value

    if as_json:
        emit(
            {
                "model": model,
                "out": str(out),
                "report": str(out / "report.html"),
                "tasks": [
                    {
                        "name": result.name,
                        "status": "done" if result.error is None else "failed",
                        "error": result.error,
                        "result": None if result.report is None else result.report.to_json(),
                    }
                    for result in results
                ],
            }
        )
        return
    rows = [
        (
            row.task,
            f"{row.count:,}",
            row.metric.replace("_", " "),
            metric_value(row.metric, row.value),
            metric_interval(row.metric, row.interval),
            metric_value(row.metric, row.chance),
            metric_value(row.metric, row.majority),
        )
        for result in results
        for row in headline_rows(result)
    ]
    rows += [
        (result.name, "-", "failed", "-", "-", "-", "-") for result in results if result.error is not None
    ]
    table(
        ("task", "images", "metric", "value", "95 % interval", "chance", "majority"), rows, right=(1, 3, 5, 6)
    )
    print(out / "report.html")
