"""By which of its metrics a task is told, where there is room for one or two."""

from diptych.evaluation.report import Report

_HEADLINES: dict[str, tuple[str, ...]] = {
    "zero-shot": ("top1",),
    "linear-probe": ("top1",),
    "retrieval": ("image_to_text_r1", "text_to_image_r1"),
}


def headlines(report: Report) -> tuple[str, ...]:
    """The metrics that stand for a report, one or more.

    A dataset's own, where the report's details name one as `metric`; else those of the task; else the first.
    """
    metrics = report.scores.metrics
    own = report.details.get("metric")
    if own in metrics:
        return (str(own),)
    found = tuple(name for name in _HEADLINES.get(report.task, ()) if name in metrics)
    return found or tuple(metrics)[:1]
