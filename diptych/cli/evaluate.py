"""`diptych evaluate`: one task, one model, one dataset."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from diptych.cli.evaluate_datasets import Root
from diptych.cli.inputs import KeepNothing, LabelSource, Metric, Templates, open_data
from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Data,
    Device,
    Json,
    LabelsFile,
    Model,
    Precision,
    TableOptions,
    example,
)
from diptych.cli.output import emit, progress, say_left_out
from diptych.errors import UsageError
from diptych.weights.naming import DEFAULT_MODEL

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source
    from diptych.distributed import World
    from diptych.evaluation.task_report import Report

app = App(name="evaluate", help="Measure a model on a dataset, with chance beside and a confidence interval.")


@app.command(
    name="zero-shot", help_epilogue=example("diptych evaluate zero-shot --data birds/ --templates photo")
)
def zero_shot(
    *,
    data: Data,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    labels_file: LabelsFile = None,
    templates: Templates = None,
    label_from: LabelSource = None,
    metric: Annotated[
        Metric | None,
        Parameter(
            help="The one that comes first; without it, a published dataset's own, else top1. roc_auc: of two classes. "
            "map11: pictures of several classes, which stand in their metadata under `labels`."
        ),
    ] = None,
    group_by: Annotated[str | None, Parameter(help="Also report each value of this metadata field.")] = None,
    root: Root = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Top-1 and top-5 accuracy of naming pictures by their classes' names alone."""
    from diptych.cli.inputs import classifier_builder, zero_shot_data  # noqa: PLC0415
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.zero_shot.classification import evaluate_zero_shot  # noqa: PLC0415
    from diptych.evaluation.zero_shot.multi_label import evaluate_multi_label  # noqa: PLC0415
    from diptych.evaluation.zero_shot.prompts import templates_for  # noqa: PLC0415

    task = zero_shot_data(data, labels_file, templates, root=root, columns=columns)
    headline = metric or task.metric
    if headline == "map11" and (group_by is not None or label_from is not None):
        raise UsageError(
            "the metric map11 takes the classes from the metadata; leave out --group-by and --label-from"
        )
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)
        words = task.templates or templates_for(name)
        build = classifier_builder(preprocess, keep=not no_cache)

        def measure(advance: Callable[[int], None]) -> "Report":
            if headline == "map11":
                return evaluate_multi_label(
                    network,
                    preprocess,
                    task.source,
                    model_name=name,
                    labels=task.labels,
                    templates=words,
                    build=build,
                    batch_size=batch_size,
                    progress=advance,
                )
            return evaluate_zero_shot(
                network,
                preprocess,
                task.source,
                model_name=name,
                labels=task.labels,
                templates=words,
                label_from=label_from or task.label_from,
                group_by=group_by,
                headline=headline,
                build=build,
                batch_size=batch_size,
                progress=advance,
            )

        show(len(task.source), measure, here, as_json, [task.source])


@app.command(
    name="word-order",
    help_epilogue=example("diptych evaluate word-order --model runs/first --data scenes:binding"),
)
def word_order(
    *,
    data: Data,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """How often a picture's caption is preferred to one of the same words that is wrong: does order matter?"""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.word_order import evaluate_word_order  # noqa: PLC0415

    source = open_data(data, columns)
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)

        def measure(advance: Callable[[int], None]) -> "Report":
            return evaluate_word_order(
                network, preprocess, source, model_name=name, batch_size=batch_size, progress=advance
            )

        show(len(source), measure, here, as_json, [source])


@app.command(
    name="labels", help_epilogue=example("diptych evaluate labels --data birds/ --model runs/labels/model")
)
def labels(
    *,
    data: Data,
    model: Model,
    activation: Activation = None,
    label_from: LabelSource = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy of a model that was trained with labels, at its own classes."""
    from diptych.cli.inputs import zero_shot_data  # noqa: PLC0415
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.zero_shot.own_classes import evaluate_own_classes  # noqa: PLC0415

    task = zero_shot_data(data, None, None, columns=columns)
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)

        def measure(advance: Callable[[int], None]) -> "Report":
            return evaluate_own_classes(
                network,
                preprocess,
                task.source,
                model_name=name,
                label_from=label_from or task.label_from,
                batch_size=batch_size,
                progress=advance,
            )

        show(len(task.source), measure, here, as_json, [task.source])


@app.command(name="retrieval", help_epilogue=example("diptych evaluate retrieval --data captions.csv"))
def retrieval(
    *,
    data: Data,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    truncate: Annotated[bool, Parameter(negative="", help="Cut captions that are too long.")] = False,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Recall at 1, 5 and 10 of captions by pictures, and of pictures by captions."""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.retrieval import evaluate_retrieval  # noqa: PLC0415

    source = open_data(data, columns)
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)

        def measure(advance: Callable[[int], None]) -> "Report":
            return evaluate_retrieval(
                network,
                preprocess,
                source,
                model_name=name,
                truncate=truncate,
                batch_size=batch_size,
                progress=advance,
            )

        show(len(source), measure, here, as_json, [source])


@contextlib.contextmanager
def everybody(device: str) -> "Iterator[World]":
    """All processes that torchrun started, or this one alone; before a model is loaded onto a GPU."""
    from diptych.distributed import processes  # noqa: PLC0415
    from diptych.hardware import pick_device  # noqa: PLC0415

    with processes(pick_device(device)) as here:
        yield here


def show(
    total: int,
    measure: "Callable[[Callable[[int], None]], Report]",
    here: "World",
    as_json: bool,
    sources: "Sequence[Source]",
) -> None:
    """Measure under a bar of `total` images, and print the report, as JSON or as a table, from one process.

    What `sources`, which the images come from, and the measurement left out goes to stderr.
    """
    from diptych.data.left_out import all_left_out, left_out_of  # noqa: PLC0415

    with progress("evaluating", total) as advance:
        report = measure(advance)
    if not here.leads:
        return
    report = replace(report, unused=all_left_out(map(left_out_of, sources)))
    say_left_out(report.left_out)
    if as_json:
        emit(report.to_json())
        return
    from rich.console import Console  # noqa: PLC0415

    Console(highlight=False).print(report.table())


app.command(
    "diptych.cli.evaluate_calibrate:calibrate",
    name="calibrate",
    help="Find the temperature and the none-of-these threshold that suit your labelled pictures.",
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
app.command(
    "diptych.cli.evaluate_probe:linear_probe",
    name="linear-probe",
    help="Accuracy of a logistic regression on a model's features.",
    help_epilogue=example("diptych evaluate linear-probe --train birds/train --test birds/test"),
)
app.command(
    "diptych.cli.evaluate_probe:few_shot",
    name="few-shot",
    help="Accuracy of probes that learn from a few pictures a class.",
    help_epilogue=example("diptych evaluate few-shot --train birds/train --test birds/test --shots 1,2,4"),
)
