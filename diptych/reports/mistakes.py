"""Wrong answers with their images, for the page of a suite."""

from collections.abc import Callable

from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.evaluation.suite.suite_rows import sample_mistakes
from diptych.evaluation.task_report import Outcomes
from diptych.reports.page_parts import PageImage
from diptych.reports.thumbnail import thumbnail
from diptych.wording import percent

_SHOWN = 24  # images of a task
_SIDE = 128  # pixels


def draw_mistakes(open_data: Callable[[], Source], outcomes: Outcomes) -> list[PageImage]:
    """Return some wrong answers, drawn at random; those whose images cannot be read any more are left out.

    open_data: opens the source of the outcomes; called only if there is a wrong answer.
    """
    rows = sample_mistakes(outcomes, _SHOWN)
    if not rows:
        return []
    source = open_data()
    images = (_mistake(source, outcomes, row) for row in rows)
    return [image for image in images if image is not None]


def _mistake(source: Source, outcomes: Outcomes, row: int) -> PageImage | None:
    assert outcomes.target is not None
    assert outcomes.predicted is not None
    try:
        example = source[outcomes.positions[row]]
        data = thumbnail(example.image, _SIDE)
    except DataError:
        return None
    sure = "" if outcomes.probability is None else f", {percent(float(outcomes.probability[row]))}"
    return PageImage(
        data,
        outcomes.labels[outcomes.target[row]],
        f"called {outcomes.labels[outcomes.predicted[row]]}{sure}",
        example.key,
    )
