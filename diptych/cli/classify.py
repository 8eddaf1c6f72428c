"""`diptych classify`: zero-shot classes of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Activation, Device, Json, KeepNothing, LabelsFile, Model, Precision
from diptych.cli.output import emit, progress, say_left_out
from diptych.errors import DataError, UsageError
from diptych.printable import printable
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.evaluation.zero_shot.calibration import Calibration
    from diptych.evaluation.zero_shot.class_labels import LabelSet


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """The classes, and the words around them."""

    labels: Annotated[
        str | None,
        Parameter(help='The classes: "cat,dog"; without them those that --model was fine-tuned on.'),
    ] = None
    labels_file: LabelsFile = None
    template: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help='Words around the label, such as "a photo of a {}."; several are averaged. Without it: the label '
            "alone for models that Diptych trained, a photo of it for others.",
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        Parameter(
            help="What diptych evaluate calibrate wrote: its classes and templates, probabilities that hold, and its "
            "threshold."
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Parameter(help="Similarity, -1..1, below which an image shows none of these."),
    ] = None


MODELS_OWN = ClassOptions()


def classify(
    images: Annotated[list[Path], Parameter(help="Image files, and folders of images.")],
    /,
    *,
    among: ClassOptions = MODELS_OWN,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    top: Annotated[int, Parameter(help="Classes shown for each image.")] = 5,
    no_cache: KeepNothing = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Sort images into classes of your own, without training."""
    calibrated, classes = _classes(among, model, top)

    from diptych.cli.machine import load_model
    from diptych.data.sources.image_files import find_image_files
    from diptych.evaluation.zero_shot.classifier_cache import builder
    from diptych.evaluation.zero_shot.own_labels import classify as rank_labels

    found = find_image_files(images)
    _, network, preprocess = load_model(model, device, precision, activation)
    threshold = among.threshold
    if calibrated is not None:
        calibrated.require(network, preprocess)
        threshold = calibrated.threshold if threshold is None else threshold
    if classes is None and network.class_head is None:
        raise UsageError(
            f'--model {model} has no classes of its own; give the classes by --labels "cat,dog" or --labels-file FILE'
        )
    with progress("classifying", len(found.files)) as advance:
        answers = rank_labels(
            network,
            preprocess,
            found.files,
            classes,
            templates=among.template,
            top=top,
            temperature=1.0 if calibrated is None else calibrated.temperature,
            threshold=threshold,
            build=builder(preprocess, keep=not no_cache),
            progress=advance,
            unreadable=found.leave_out,
        )
    say_left_out(found.left_out)
    _report(answers, as_json, images)


def _classes(options: ClassOptions, model: str, top: int) -> "tuple[Calibration | None, LabelSet | None]":
    """Return the calibration, and the classes in words; neither for those that the model was fine-tuned on."""
    if top < 1:
        raise UsageError(f"--top {top}: expected at least 1")
    threshold = options.threshold
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold}: expected a similarity, -1..1")
    named = options.labels is not None or options.labels_file is not None
    if options.calibration is not None:
        if named or options.template is not None:
            raise UsageError(
                "--calibration brings its classes and templates; leave out --labels, --labels-file and --template"
            )
        from diptych.evaluation.zero_shot.calibration import read_calibration

        calibrated = read_calibration(options.calibration)
        return calibrated, calibrated.label_set
    if named or model == DEFAULT_MODEL:
        return None, read_classes(options.labels, options.labels_file)
    if options.template is not None or threshold is not None:
        raise UsageError(
            "--template and --threshold go with classes in words; give --labels or --labels-file"
        )
    return None, None


def read_classes(labels: str | None, file: Path | None) -> "LabelSet":
    """Return the classes of exactly one of `--labels "cat,dog"` and `--labels-file FILE`."""
    from diptych.evaluation.zero_shot.class_labels import labels_from, read_labels

    if labels is not None and file is None:
        return labels_from(labels)
    if file is not None and labels is None:
        return read_labels(file)
    raise UsageError('give the classes by exactly one of --labels "cat,dog" and --labels-file FILE')


def _report(answers: Sequence[Any], as_json: bool, places: Sequence[Path]) -> None:
    """Print what was found; an error where no image could be read."""
    if not answers:
        raise DataError(f"{', '.join(map(str, places))}: no image there can be read; see the warnings above")
    if as_json:
        emit(answers)
        return
    for answer in answers:
        best = ", ".join(
            f"{guess['label']} {percent(guess['probability'])}" for guess in answer["predictions"]
        )
        nothing = "none of these; nearest: " if answer.get("none_of_these") else ""
        print(f"{printable(answer['image'])}: {nothing}{best}")
