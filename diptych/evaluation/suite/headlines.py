"""The metrics that stand for a report, where there is room for one or two."""

from diptych.evaluation.task_report import Report
from diptych.evaluation.tasks import TASKS


def headlines(report: Report) -> tuple[str, ...]:
    """Return the metrics that stand for a report.

    R@1 in both directions of retrieval, and what other tasks name; else the one that the report's details call its
    headline; else the first.
    """
    task = TASKS.get(report.task)
    if task is not None and task.headline:
        return task.headline
    named = report.details.get("headline")
    return (str(named),) if named in report.scores.metrics else tuple(report.scores.metrics)[:1]
