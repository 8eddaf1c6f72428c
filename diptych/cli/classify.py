"""`diptych classify`: zero-shot classes of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.inputs import find_pictures, read_classes, templates_for
from diptych.cli.options import DEFAULT_MODEL, Device, Json, LabelsFile, Model, Precision, UsageError
from diptych.cli.output import emit, percent, progress, say
from diptych.errors import DataError, ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from diptych.data.transforms import Preprocess


def classify(
    images: Annotated[list[Path], Parameter(help="Picture files, and folders of pictures.")],
    /,
    *,
    labels: Annotated[str | None, Parameter(help='The classes: "cat,dog".')] = None,
    labels_file: LabelsFile = None,
    template: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help='Words around the label, such as "a photo of a {}."; several are averaged. Without it: the label '
            "alone for models that Diptych trained, a photo of it for others.",
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    top: Annotated[int, Parameter(help="Classes shown for each picture.")] = 5,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Sort pictures into classes of your own, without training."""
    if top < 1:
        raise UsageError(f"--top {top}: expected at least 1")
    classes = read_classes(labels, labels_file)
    named, found = find_pictures(images)

    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.evaluation import classify as zero_shot  # noqa: PLC0415

    name, network, preprocess = load_model(model, device, precision)
    lenient = _Lenient(preprocess, found)
    with progress("classifying", len(named) + len(found)) as advance:
        answers = zero_shot.classify(
            network,
            lenient,
            [*named, *found],
            classes,
            templates=template or classes.templates or templates_for(name),
            top=top,
            progress=advance,
        )
    report([answer for answer in answers if Path(answer["image"]) not in lenient.unreadable], as_json, images)


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
        print(f"{answer['image']}: {best}")


class _Lenient:
    """Preprocessing for which a bad picture in a folder is no reason to stop: a blank stands in for it.

    A picture that was named on the command line is one. Called from several threads.
    """

    def __init__(self, preprocess: "Preprocess", found: Sequence[Path]) -> None:
        self.unreadable: set[Path] = set()
        self._preprocess = preprocess
        self._found = frozenset(found)

    def __call__(self, image: Path) -> "Tensor":
        try:
            return self._preprocess(image)
        except ImageError as error:
            if image not in self._found:
                raise
            import torch  # noqa: PLC0415

            say(f"warning: skipped: {error}")
            self.unreadable.add(image)
            return torch.zeros(3, self._preprocess.resolution, self._preprocess.resolution)
