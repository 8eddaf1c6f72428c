"""Write a model in the form of another library, and check what was written: `diptych.export`."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, SettingsError
from diptych.exporting.open_clip_folder import write_open_clip
from diptych.exporting.sample_check import ExportCheck, SampleInputs, check_export, sample_inputs
from diptych.exporting.torchscript_file import PROGRAM, write_torchscript
from diptych.exporting.transformers_folder import write_transformers
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from diptych.weights.checkpoint import Precision, refuse_not_finite
from diptych.weights.folders import new_folder
from diptych.weights.foreign import open_clip, transformers
from diptych.weights.formats import load_path

Format = Literal["open_clip", "transformers", "torchscript"]


@dataclass(frozen=True)
class ExportReport:
    """The files of an export, and how far its answers are from the source's.

    files: names in the folder, sorted. remarks: what of the model the format has no place for.
    """

    folder: Path
    format: str
    precision: str
    files: tuple[str, ...]
    check: ExportCheck
    remarks: tuple[str, ...]


class _Form(NamedTuple):
    """How a format is written. The result of `write` has `encode_image` and `encode_text`."""

    marker: str  # a file by which an older export is known
    precisions: tuple[str, ...]
    write: Callable[[Path, CLIP, Preprocess, Precision, SampleInputs], Any]


def _open_clip(
    folder: Path, model: CLIP, preprocess: Preprocess, precision: Precision, _: SampleInputs
) -> ImageModel:
    write_open_clip(folder, model, preprocess, precision)
    return load_path(folder)[0]


def _transformers(
    folder: Path, model: CLIP, preprocess: Preprocess, precision: Precision, _: SampleInputs
) -> ImageModel:
    write_transformers(folder, model, preprocess, precision)
    return load_path(folder)[0]


def _torchscript(
    folder: Path, model: CLIP, preprocess: Preprocess, _: Precision, inputs: SampleInputs
) -> Any:
    return write_torchscript(folder, model, preprocess, inputs)


FORMATS: Mapping[str, _Form] = {
    "open_clip": _Form(open_clip.CONFIG, ("float32", "float16"), _open_clip),
    "transformers": _Form(transformers.CONFIG, ("float32", "float16"), _transformers),
    "torchscript": _Form(PROGRAM, ("float32",), _torchscript),
}


def export(
    model: ImageModel,
    preprocess: Preprocess,
    folder: str | os.PathLike[str],
    format: Format,
    *,
    precision: Precision = "float32",
) -> ExportReport:
    """Write a model as a folder that another library reads, with its preprocessing and tokenizer.

    The export is checked before the folder appears: images and captions of the bundled sample go through both
    models. A folder of open_clip or transformers is read back with Diptych's own reader for that.

    Args:
        model: a model with an image and a text tower.
        preprocess: what `load` returned beside it.
        folder: where to write. An older export of the same format there is replaced; a folder with other files is
            refused.
        format: "open_clip", "transformers" or "torchscript".
        precision: of the stored matrices: "float32", or "float16" for open_clip and transformers.

    Returns:
        The report: `folder`, `files`, `check` with the largest difference from the source, and `remarks`, which name
        what the format has no place for.

    Raises:
        CheckpointError: the format cannot hold this model, the message says why; or the folder has other files.
        SettingsError: there is no such format, or it does not have that precision.

    Example:
        >>> import diptych
        >>> model, preprocess = diptych.load("diptych-mini", device="cpu")
        >>> report = diptych.export(model, preprocess, "exported", "torchscript")
        >>> report.check.same_top1 == report.check.images, report.check.largest_difference < 1e-5
        (True, True)
    """
    form = _form(format, precision)
    if not isinstance(model, CLIP):
        raise CheckpointError(
            f"the model is {model.description}; an export holds an image tower and a text tower. To keep the model as "
            "it is, use diptych.save"
        )
    source = copy.deepcopy(model).float().cpu().eval()
    refuse_not_finite(source.state_dict(), Path(folder))
    source.classifier = None  # no format has a place for it; `_remarks` says so
    inputs = sample_inputs(preprocess, source.context_length)
    target = Path(folder)
    with new_folder(target, form.marker) as work:
        exported = form.write(work, source, preprocess, precision, inputs)
        check = check_export(source, exported, inputs, precision)
        files = tuple(sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()))
    return ExportReport(target, format, precision, files, check, _remarks(model, format))


def _form(format: str, precision: str) -> _Form:
    if format not in FORMATS:
        raise SettingsError(f"format: unknown {format!r}; {config.nearest(str(format), FORMATS)}")
    form = FORMATS[format]
    if precision not in form.precisions:
        raise SettingsError(
            f"precision {precision!r}: the format {format} has {', '.join(form.precisions)}; choose one of these"
        )
    return form


def _remarks(model: CLIP, format: str) -> tuple[str, ...]:
    if model.classifier is None:
        return ()
    count = len(model.classifier.classes)
    return (f"the classifier of {count:,} classes is left out: {format} has no place for it beside a CLIP",)
