"""`diptych evaluate calibrate`: a file that makes the answers of `diptych classify` mean what they say."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.evaluate import everybody
from diptych.cli.evaluate_datasets import Root
from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Data,
    Device,
    Json,
    KeepNothing,
    LabelsFile,
    Model,
    Precision,
    TableOptions,
)
from diptych.cli.output import emit, progress, say, say_left_out, table
from diptych.cli.task_options import parameter
from diptych.errors import SettingsError
from diptych.evaluation.tasks import LabelFrom, ZeroShot
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source
    from diptych.evaluation.task_jobs import ZeroShotData
    from diptych.evaluation.zero_shot.calibration import Calibration


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WordOptions:
    """What the classes are, and how they are said."""

    labels_file: LabelsFile = None
    templates: Annotated[str | None, parameter(ZeroShot, "templates")] = None
    label_from: Annotated[LabelFrom | None, parameter(ZeroShot, "label_from")] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    """What the threshold has to tell apart."""

    none_data: Annotated[
        str | None, Parameter(help="Images of none of the classes: as --data, labels are not read.")
    ] = None
    keep: Annotated[
        float | None,
        Parameter(
            help="The share of labelled images that the threshold lets pass; 0.95, or with --none-data what tells "
            "both kinds apart best."
        ),
    ] = None


NO_WORDS = WordOptions()
NO_THRESHOLD = ThresholdOptions()


def calibrate(
    *,
    data: Data,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="The file to write, for classify --calibration.")
    ],
    threshold: ThresholdOptions = NO_THRESHOLD,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    words: WordOptions = NO_WORDS,
    root: Root = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Find the temperature and the none-of-these threshold that suit your labelled images."""
    if not out.absolute().parent.is_dir():
        raise SettingsError(f"{out}: the folder {out.parent} does not exist; make it first")

    from diptych.cli.machine import load_model
    from diptych.evaluation.zero_shot import calibration
    from diptych.evaluation.zero_shot.classifier_cache import builder

    labels = None if words.labels_file is None else str(words.labels_file)
    given = {"labels": labels, "templates": words.templates, "label_from": words.label_from, **vars(columns)}
    task, others = _open_data(
        ZeroShot(name="calibrate", data=data, **given), threshold.none_data, root, model
    )
    with everybody(device) as here:
        name, network, preprocess = load_model(model, device, precision, activation)
        with progress("calibrating", len(task.source) + (0 if others is None else len(others))) as advance:
            found = calibration.calibrate(
                network,
                preprocess,
                task.source,
                model_name=name,
                none_of_these=others,
                keep=threshold.keep,
                labels=task.labels,
                templates=task.templates,
                label_from=task.label_from,
                build=builder(preprocess, keep=not no_cache),
                batch_size=batch_size,
                progress=advance,
            )
        if here.leads:
            calibration.write_calibration(out, found)
            _report(out, found, calibration.TEMPERATURES, as_json)


def _open_data(
    asked: ZeroShot, none_data: str | None, root: Path | None, model: str
) -> "tuple[ZeroShotData, Source | None]":
    """Open the labelled images and those of other things, and say what was left out."""
    from diptych.data.left_out import all_left_out, left_out_of
    from diptych.evaluation.job import Context, open_data
    from diptych.evaluation.task_jobs import zero_shot_data
    from diptych.evaluation.zero_shot.prompts import templates_for

    opening = partial(open_data, root=root)
    task = zero_shot_data(asked, Context(open=opening, templates=templates_for(model)))
    others = None
    if none_data is not None:
        others = opening(none_data, ZeroShot(name=asked.name, data=none_data)).source
    sources = [task.source, *([others] if others is not None else [])]
    say_left_out(all_left_out(map(left_out_of, sources)))
    return task, others


def _report(out: Path, found: "Calibration", limits: tuple[float, float], as_json: bool) -> None:
    measured = found.measured
    if not limits[0] * 1.001 < found.temperature < limits[1] / 1.001:
        say(
            f"warning: the temperature is at a limit of what is tried, {found.temperature:.2g}: these images do not "
            "say how sure to be; give more of them, or harder ones"
        )
    if as_json:
        emit(
            {
                "calibration": str(out),
                "model": found.model,
                "temperature": found.temperature,
                "threshold": found.threshold,
                "measured": measured,
            }
        )
        return
    rows = [
        (name, shown(measured[f"{key}_before"]), shown(measured[key]))
        for name, key, shown in (
            ("log loss", "log_loss", "{:.3f}".format),
            ("calibration error", "calibration_error", percent),
        )
    ]
    table(("", "before", "after"), rows, right=(1, 2))
    print(f"\ntemperature {found.temperature:.3f}, from {measured['count']:,.0f} labelled images")
    print(f"threshold {found.threshold:.3f}: {percent(measured['kept'])} of them reach it")
    print(f"named rightly: {percent(measured['top1'])} of all, {percent(measured['top1_kept'])} of those")
    if "none_count" in measured:
        print(
            f"of {measured['none_count']:,.0f} other images, {percent(measured['turned_away'])} are turned away "
            f"(ROC AUC of the similarity: {measured['none_roc_auc']:.3f})"
        )
    print(f"\nwritten to {out}; use it with: diptych classify IMAGES --calibration {out}")
