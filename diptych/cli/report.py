"""`diptych report`: a run, or several, as one page."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit


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
    as_json: Json = False,
) -> None:
    """Write the curves, the evaluations and the recipe of a run as one HTML file that needs nothing else.

    A run that is going on, was stopped or was killed is shown as far as it came.
    """
    from diptych.atomic import write_text  # noqa: PLC0415
    from diptych.cli.report_page import page  # noqa: PLC0415
    from diptych.config import plain  # noqa: PLC0415
    from diptych.training.run_report import SWEEP, read_run  # noqa: PLC0415

    folders: list[Path] = []
    for place in (run, *others):
        if (place / SWEEP).is_file():
            from diptych.training.sweep import best_trials  # noqa: PLC0415 - torch, which a run does not need

            folders += best_trials(place)
        else:
            folders.append(place)
    runs = [read_run(folder) for folder in folders]
    inside = not others and runs[0].folder == run
    file = out if out is not None else (run if inside else Path()) / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page(runs))
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
