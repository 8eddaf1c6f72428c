"""`diptych demo`: train, measure, classify and search on bundled data, and a page that shows it."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, progress, say, table
from diptych.errors import UsageError
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import minutes as exact_minutes
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.evaluation.task_report import Report
    from diptych.runs.demo_story import Story


def demo(
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="The folder for the page, the model, the index.")
    ] = Path("demo"),
    minutes: Annotated[float, Parameter(help="The most that training may take.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Show the whole story on bundled data, without a download: train briefly, evaluate, classify, search, one page."""
    if not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes}: expected more than 0")
    started = time.perf_counter()

    from diptych.atomic import write_text
    from diptych.reports.demo_page import page
    from diptych.runs.demo_run import PAGE, run_demo

    story, reports = run_demo(out, minutes=minutes, say=say, progress=progress)
    write_text(out / PAGE, page(story))
    _report(story, out, time.perf_counter() - started, as_json, reports)


def _report(story: "Story", out: Path, seconds: float, as_json: bool, reports: Sequence["Report"]) -> None:
    if as_json:
        emit(
            {
                "page": str(out / "index.html"),
                "model": str(out / "run" / "model"),
                "index": str(out / "index"),
                "seconds": seconds,
                "training_seconds": story.seconds,
                "losses": story.losses,
                "zero_shot": [report.to_json() for report in reports],
            }
        )
        return
    first, last = story.losses[0][1], story.losses[-1][1]
    print(
        f"Trained from scratch in {exact_minutes(story.seconds)}: the loss fell from {first:.2f} to {last:.2f}.\n"
    )
    rows = [(row.who, percent(row.top1), percent(row.top5)) for row in story.accuracies]
    table(("zero-shot, unseen designer", "first answer", "among five"), rows, right=(1, 2))
    print(f"\n{DEFAULT_MODEL} on three images:")
    for answer in story.answers[:3]:
        print(
            f"  {answer.truth}: " + ", ".join(f"{label} {percent(share)}" for label, share in answer.guesses)
        )
    print(f"\n{DEFAULT_MODEL} searching:")
    for found in story.searches[:3]:
        print(f"  {found.query}: " + ", ".join(image.caption for image, _ in found.images))
    print(f"\nAll of it with images: {out / 'index.html'} ({exact_minutes(seconds)} in all)\n\nNext:")
    for command, job in story.next_steps:
        print(f"  {command}\n      {job}")
