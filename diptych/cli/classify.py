"""`diptych classify`: zero-shot classes of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.inputs import KeepNothing, classifier_builder, find_pictures, read_classes
from diptych.cli.options import Activation, Device, Json, LabelsFile, Model, Precision
from diptych.cli.output import emit, progress, say_left_out
from diptych.errors import DataError, UsageError
from diptych.printable import printable
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.evaluation.zero_shot.calibration import Calibration


def classify(
    images: Annotated[list[Path], Parameter(help="Picture files, and folders of pictures.")],
    /,
    *,
    labels: Annotated[
        str | None,
        Parameter(help='The classes: "cat,dog"; without them those that --model was fine-tuned on.'),
    ] = None,
    labels_file: LabelsFile = None,
    template: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help='Words around the label, such as "a photo of a {}."; several are averaged. Without it: the label '
            "alone for models that Diptych trained, a photo of it for others.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        Parameter(
            help="What diptych evaluate calibrate wrote: its classes and templates, probabilities that hold, and its "
            "threshold."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        Parameter(help="Similarity, -1..1, below which a picture shows none of these."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    top: Annotated[int, Parameter(help="Classes shown for each picture.")] = 5,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Sort pictures into classes of your own, without training."""
    if top < 1:
        raise UsageError(f"--top {top}: expected at least 1")
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold}: expected a similarity, -1..1")
    if calibration is not None and any(given is not None for given in (labels, labels_file, template)):
        raise UsageError(
            "--calibration brings its classes and templates; leave out --labels, --labels-file and --template"
        )
    calibrated = _calibration(calibration) if calibration is not None else None
    own = labels is None and labels_file is None and calibrated is None and model != DEFAULT_MODEL
    if own and (template is not None or threshold is not None):
        raise UsageError(
            "--template and --threshold go with classes in words; give --labels or --labels-file"
        )
    classes = None
    if not own:
        classes = calibrated.label_set if calibrated is not None else read_classes(labels, labels_file)
    pictures = find_pictures(images)

    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation.zero_shot.own_labels import classify as rank_labels  # noqa: PLC0415

    _, network, preprocess = load_model(model, device, precision, activation)
    if calibrated is not None:
        calibrated.require(network, preprocess)
        threshold = calibrated.threshold if threshold is None else threshold
    if classes is None and network.class_head is None:
        raise UsageError(
            f'--model {model} has no classes of its own; give the classes by --labels "cat,dog" or --labels-file FILE'
        )
    with progress("classifying", len(pictures.files)) as advance:
        answers = rank_labels(
            network,
            preprocess,
            pictures.files,
            classes,
            templates=template,
            top=top,
            temperature=1.0 if calibrated is None else calibrated.temperature,
            threshold=threshold,
            build=classifier_builder(preprocess, keep=not no_cache),
            progress=advance,
            unreadable=pictures.leave_out,
        )
    say_left_out(pictures.left_out)
    report(answers, as_json, images)


def report(answers: Sequence[Any], as_json: bool, places: Sequence[Path]) -> None:
    """Print what was found; an error where no picture could be read."""
    if not answers:
        raise DataError(
            f"{', '.join(map(str, places))}: no picture there can be read; see the warnings above"
        )
    if as_json:
        emit(answers)
        return
    for answer in answers:
        best = ", ".join(
            f"{guess['label']} {percent(guess['probability'])}" for guess in answer["predictions"]
        )
        nothing = "none of these; nearest: " if answer.get("none_of_these") else ""
        print(f"{printable(answer['image'])}: {nothing}{best}")


def _calibration(file: Path) -> "Calibration":
    from diptych.evaluation.zero_shot.calibration import read_calibration  # noqa: PLC0415

    return read_calibration(file)
