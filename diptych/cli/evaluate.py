"""`diptych evaluate`: one task, one model, one dataset."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from diptych.cli.options import (
    DEFAULT_MODEL,
    BatchSize,
    CaptionColumn,
    Data,
    Device,
    ImageColumn,
    Json,
    LabelColumn,
    LabelsFile,
    Model,
    Precision,
)
from diptych.cli.output import emit, progress

if TYPE_CHECKING:
    from diptych.evaluation.report import Report

app = App(name="evaluate", help="Measure a model on a dataset, with chance beside and a confidence interval.")


@app.command(
    name="zero-shot", help_epilogue="Example: diptych evaluate zero-shot --data birds/ --templates photo"
)
def zero_shot(
    *,
    data: Data,
    model: Model = DEFAULT_MODEL,
    labels_file: LabelsFile = None,
    templates: Annotated[
        str | None,
        Parameter(help="plain, photo, drawings, imagenet, imagenet-7, or one such as 'a photo of a {}.'."),
    ] = None,
    label_from: Annotated[
        Literal["label", "caption"], Parameter(help="Where the class of a picture stands.")
    ] = "label",
    group_by: Annotated[str | None, Parameter(help="Also report each value of this metadata field.")] = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    label_column: LabelColumn = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Top-1 and top-5 accuracy of naming pictures by their classes' names alone."""
    from diptych.cli.inputs import templates_for  # noqa: PLC0415
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.data.sources import open_source  # noqa: PLC0415
    from diptych.evaluation.labels import read_labels  # noqa: PLC0415
    from diptych.evaluation.prompts import templates_named  # noqa: PLC0415
    from diptych.evaluation.zero_shot import evaluate_zero_shot  # noqa: PLC0415

    words = templates_named(templates) if templates is not None else None
    labels = read_labels(labels_file) if labels_file is not None else None
    source = open_source(
        data, image_column=image_column, caption_column=caption_column, label_column=label_column
    )
    name, network, preprocess = load_model(model, device, precision)
    if words is None and (labels is None or labels.templates is None):
        words = templates_for(name)
    _show(
        len(source),
        lambda advance: evaluate_zero_shot(
            network,
            preprocess,
            source,
            model_name=name,
            labels=labels,
            templates=words,
            label_from=label_from,
            group_by=group_by,
            batch_size=batch_size,
            progress=advance,
        ),
        as_json,
    )


@app.command(name="retrieval", help_epilogue="Example: diptych evaluate retrieval --data captions.csv")
def retrieval(
    *,
    data: Data,
    model: Model = DEFAULT_MODEL,
    truncate: Annotated[bool, Parameter(negative="", help="Cut captions that are too long.")] = False,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Recall at 1, 5 and 10 of captions by pictures, and of pictures by captions."""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.data.sources import open_source  # noqa: PLC0415
    from diptych.evaluation.retrieval import evaluate_retrieval  # noqa: PLC0415

    source = open_source(data, image_column=image_column, caption_column=caption_column)
    name, network, preprocess = load_model(model, device, precision)
    _show(
        len(source),
        lambda advance: evaluate_retrieval(
            network,
            preprocess,
            source,
            model_name=name,
            truncate=truncate,
            batch_size=batch_size,
            progress=advance,
        ),
        as_json,
    )


def _show(total: int, measure: "Callable[[Callable[[int], None]], Report]", as_json: bool) -> None:
    with progress("evaluating", total) as advance:
        report = measure(advance)
    if as_json:
        emit(report.to_json())
        return
    from rich.console import Console  # noqa: PLC0415

    Console(highlight=False).print(report.table())
