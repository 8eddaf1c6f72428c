"""`diptych report`: a run, or several, as one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, progress
from diptych.errors import DiptychError, UsageError

if TYPE_CHECKING:
    from diptych.reports.caption_gallery import Gallery
    from diptych.runs.run_summary import RunReport


def report(
    run: Annotated[Path, Parameter(help="The folder of a run, or of a sweep.")],
    /,
    *others: Annotated[Path, Parameter(help="Further runs, drawn over the first.")],
    out: Annotated[
        Path | None,
        Parameter(
            name=["--out", "-o"], help="The file; without it report.html, inside the run if there is one."
        ),
    ] = None,
    captions: Annotated[
        str | None,
        Parameter(
            help="Held-out images with captions, beside which the page of a captioner's run shows what it writes; "
            "without it those that the recipe names in [evaluation] captions, if any."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the curves, the evaluations and the recipe of a run as one HTML file that needs nothing else.

    A run that is going on, was stopped or was killed is shown as far as it came.
    """
    from diptych.atomic import write_text
    from diptych.reports.run_page import page
    from diptych.runs.run_summary import SWEEP, read_run

    folders: list[Path] = []
    for place in (run, *others):
        if (place / SWEEP).is_file():
            from diptych.runs.sweep_folder import best_trials

            folders += best_trials(place)
        else:
            folders.append(place)
    runs = [read_run(folder) for folder in folders]
    if captions is not None and len(runs) > 1:
        raise UsageError("--captions: the page of several runs shows none; name one run, or leave it out")
    inside = not others and runs[0].folder == run
    file = out if out is not None else (run if inside else Path()) / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page(runs, _gallery(runs[0], captions) if len(runs) == 1 else None))
    _report(runs, file, as_json)


def _report(runs: Sequence["RunReport"], file: Path, as_json: bool) -> None:
    from diptych.config import plain

    if as_json:
        emit(
            {
                "report": str(file),
                "runs": [
                    {
                        "run": str(one.folder),
                        "state": one.state,
                        "step": one.step,
                        "total": one.total,
                        "seconds_left": one.seconds_left,
                        "verdict": one.verdict,
                        "metrics": one.final(),
                        "best": None if one.best is None else plain(one.best),
                    }
                    for one in runs
                ],
            }
        )
    else:
        for one in runs:
            of = "" if one.total is None else f" of {one.total:,}"
            loss = one.mean("loss")
            print(
                f"{one.name}: {one.state}, step {one.step:,}{of}"
                + ("" if loss is None else f", loss {loss:.3f}")
            )
        print(file)


def _gallery(run: "RunReport", asked: str | None) -> "Gallery | None":
    """Caption held-out images; None for a run whose recipe names none, where none are asked for."""
    data = asked if asked is not None else run.captioned
    if data is None:
        return None
    # torch and a model, which other runs do without
    from diptych.reports.caption_gallery import COUNT, Gallery, caption_held_out

    try:
        with progress("writing captions", COUNT) as advance:
            return caption_held_out(run.folder, data, advance)
    except DiptychError as error:
        if asked is not None:
            raise
        # A run that is going on, or whose data have moved, is shown all the same.
        return Gallery(data, reason=str(error))
