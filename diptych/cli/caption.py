"""`diptych caption`: write captions of images."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import Activation, Device, Json, Precision
from diptych.cli.output import emit, progress, say_left_out
from diptych.errors import DataError, ImageError, UsageError


def caption(
    images: Annotated[list[Path], Parameter(help="Image files, and folders of images.")],
    /,
    *,
    model: Annotated[
        str, Parameter(name=["--model", "-m"], help="A run, or a checkpoint, of the objective captioning.")
    ],
    activation: Activation = None,
    beams: Annotated[
        int, Parameter(help="Texts that the search keeps; 1 takes the best word each time.")
    ] = 5,
    nucleus: Annotated[
        float | None,
        Parameter(help="Draw each word among the likeliest of this probability, 0..1, in place of a search."),
    ] = None,
    seed: Annotated[int, Parameter(help="Seed of the draws.")] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Write a caption of each image, with a model that was trained to (VirTex)."""
    if beams < 1:
        raise UsageError(f"--beams {beams}: expected at least 1")
    if nucleus is not None and not 0 < nucleus <= 1:
        raise UsageError(f"--nucleus {nucleus}: expected a probability above 0 and at most 1")

    from diptych.cli.machine import load_model
    from diptych.data.sources.image_files import find_image_files
    from diptych.evaluation.generated_captions import write_captions

    found = find_image_files(images)
    _, network, preprocess = load_model(model, device, precision, activation)
    written = []
    with progress("writing", len(found.files)) as advance:
        for number, image in enumerate(found.files):
            try:
                written += write_captions(
                    network,
                    preprocess,
                    [image],
                    beams=beams,
                    nucleus=nucleus,
                    seed=seed + number,
                    progress=advance,
                )
            except ImageError as error:
                found.leave_out(number, error)
    say_left_out(found.left_out)
    if not written:
        raise DataError(f"{', '.join(map(str, images))}: no image there can be read; see the warnings above")
    if as_json:
        emit([{**answer} for answer in written])
        return
    for answer in written:
        print(f"{answer['image']}: {answer['caption']}")
