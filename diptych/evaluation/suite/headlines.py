"""By which of its metrics a task is told, where there is room for one or two."""

from diptych.evaluation.task_report import Report

_BOTH_DIRECTIONS = ("image_to_text_r1", "text_to_image_r1")


def headlines(report: Report) -> tuple[str, ...]:
    """The metrics that stand for a report.

    R@1 in both directions of retrieval; else the one that the report's details call its headline; else the first.
    """
    if report.task == "retrieval":
        return _BOTH_DIRECTIONS
    named = report.details.get("headline")
    return (str(named),) if named in report.scores.metrics else tuple(report.scores.metrics)[:1]
