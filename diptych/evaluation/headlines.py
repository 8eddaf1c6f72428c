"""By which of its metrics a task is told, where there is room for one or two."""

from diptych.evaluation.report import Report

_BOTH_DIRECTIONS = ("image_to_text_r1", "text_to_image_r1")


def headlines(report: Report) -> tuple[str, ...]:
    """The metrics that stand for a report: R@1 in both directions of retrieval, else the metric that it has first."""
    if report.task == "retrieval":
        return _BOTH_DIRECTIONS
    return tuple(report.scores.metrics)[:1]
