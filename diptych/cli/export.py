"""`diptych export`: a model in the form of another library."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.options import Activation, Json
from diptych.cli.output import emit, say

if TYPE_CHECKING:
    from diptych.exporting.export_model import ExportReport


def export(
    model: Annotated[
        str, Parameter(help="A published name, or a checkpoint file or folder; see: diptych models.")
    ],
    /,
    *,
    format: Annotated[
        Literal["open_clip", "transformers", "torchscript"],
        Parameter(help="The library that will load the model."),
    ],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The folder to write.")],
    precision: Annotated[
        Literal["float32", "float16"],
        Parameter(help="Of the stored matrices; torchscript has float32 alone."),
    ] = "float32",
    activation: Activation = None,
    as_json: Json = False,
) -> None:
    """Write a model in the form of another library, with preprocessing and tokenizer, and check the result."""
    from diptych.exporting.export_model import export as export_model
    from diptych.pretrained import load

    network, preprocess = load(model, "cpu", activation=activation)
    report = export_model(network, preprocess, out, format, precision=precision)
    for remark in report.remarks:
        say(f"warning: {remark}")
    if as_json:
        emit(_result(report))
        return
    check = report.check
    print(f"{report.folder}: {report.format}, {report.precision}: {', '.join(report.files)}")
    print(
        f"largest difference from the source: {check.largest_difference:.1e} (features of unit length); "
        f"the same nearest caption for {check.same_top1} of {check.images} images of the sample"
    )


def _result(report: "ExportReport") -> dict[str, object]:
    return {
        "out": str(report.folder),
        "format": report.format,
        "precision": report.precision,
        "files": list(report.files),
        "images": report.check.images,
        "largest_difference": report.check.largest_difference,
        "same_top1": report.check.same_top1,
        "remarks": list(report.remarks),
    }
