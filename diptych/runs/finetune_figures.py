"""What a run of fine-tuning gained and lost: its reports before and after, the losses, and the best alpha."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import LeftOut
from diptych.data.subsets.split import Split
from diptych.evaluation.comparison import Change, Difference, compare
from diptych.evaluation.metrics import Interval
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.task_report import Report
from diptych.models.image_model import ImageModel
from diptych.training.engine import Result
from diptych.training.settings import Recipe

Reports = Mapping[str, Report]
HELD_OUT_TASK = "held_out"  # the task of a planned recipe that measures the held-out part
OWN = (HELD_OUT_TASK, "shift")  # beginnings of the names of tasks that are about the classes learned


class Measure(Protocol):
    """Measure a model, and return the report of each task of the recipe by its name, without those in `skip`."""

    def __call__(
        self, model: ImageModel, preprocess: Preprocess, *, skip: Collection[str] = ()
    ) -> Reports: ...


@dataclass(frozen=True)
class Loss:
    """A task that lost more than the recipe allows.

    before, after: the values of `metric`. share: (before - after) / (before - chance).
    """

    task: str
    metric: str
    before: float
    after: float
    share: float

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.metric} fell from {self.before:.1%} to {self.after:.1%}, {self.share:.0%} of what it "
            "was above chance; a lower learning rate, fewer steps or a smaller alpha keeps more"
        )


@dataclass(frozen=True)
class FinetuneResult:
    """The result of a run of fine-tuning.

    recipe: its settings. method, alpha: those of the result. step: the optimizer step of its weights; 0 if no step was
    better than the start. before: the tasks' reports of the model as it was loaded, asked by the names of the classes.
    start: those of the model that training began with, which may have a probe. after: those of the result. curve: each
    alpha that was measured, with its reports. losses: the tasks that lost too much from before to after. result: the
    engine's, with the checkpoint. held_out: None if nothing is held out. classes: those of the model's classifier;
    empty after pairs. left_out: the examples that the run could not use.
    """

    recipe: Recipe
    method: str
    alpha: float
    step: int
    before: Reports
    start: Reports
    after: Reports
    curve: tuple[tuple[float, Reports], ...]
    losses: tuple[Loss, ...]
    result: Result
    held_out: Split | None
    classes: tuple[str, ...]
    left_out: LeftOut

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them, without the outcome of each example."""
        return {
            "method": self.method,
            "alpha": self.alpha,
            "checkpoint": self.result.checkpoint,
            "step": self.step,
            "steps": self.result.step,
            "best": None if self.result.best is None else plain(self.result.best),
            "before": {name: report.to_json() for name, report in self.before.items()},
            "start": {name: report.to_json() for name, report in self.start.items()},
            "after": {name: report.to_json() for name, report in self.after.items()},
            "curve": [{"alpha": alpha, "metrics": metrics_of(reports)} for alpha, reports in self.curve],
            "lost": [plain(loss) for loss in self.losses],
            "held_out": None if self.held_out is None else self.held_out.to_json(),
        }


def metrics_of(reports: Reports) -> dict[str, float]:
    """Return TASK_METRIC -> value, as the log of a run has it."""
    return {
        f"{task}_{metric}": value
        for task, report in reports.items()
        for metric, value in report.scores.metrics.items()
    }


def headline(report: Report) -> tuple[str, float]:
    """Return the headline metric of a report and its value; for retrieval the mean R@1 of both directions."""
    names = headlines(report)
    values = [report.scores.metrics[name] for name in names]
    return names[0] if len(names) == 1 else "mean_r1", sum(values) / len(values)


def paired_difference(task: str, before: Report, after: Report) -> Difference | None:
    """Return the paired difference in the metric that stands for a task.

    None where that is not a mean over examples, and for retrieval, whose two directions have different examples.
    """
    wanted = headlines(before)
    differences = compare(task, before, after).differences if len(wanted) == 1 else ()
    return next((one for one in differences if one.metric == wanted[0]), None)


@dataclass(frozen=True)
class TaskChange:
    """What a run did to one task.

    metric: the headline one. before, start, after: its values. before_interval, after_interval: its 95 % intervals
    over test images, if it has them. paired: the paired difference from before to after, if there is one.
    """

    task: str
    metric: str
    count: int  # test images
    data: str
    before: float
    start: float
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    paired: Difference | None


def task_changes(found: FinetuneResult) -> list[TaskChange]:
    """Return what a run did to each of its tasks."""
    changes = []
    for task, before in found.before.items():
        metric, old = headline(before)
        changes.append(
            TaskChange(
                task=task,
                metric=metric,
                count=before.scores.count,
                data=before.data,
                before=old,
                start=headline(found.start[task])[1],
                after=headline(found.after[task])[1],
                before_interval=before.scores.confidence.get(metric),
                after_interval=found.after[task].scores.confidence.get(metric),
                paired=paired_difference(task, before, found.after[task]),
            )
        )
    return changes


def changed_examples(found: FinetuneResult) -> list[tuple[Change, int]] | None:
    """Return the held-out examples that were gained or lost, each with its position in the held-out part.

    None if nothing was held out, or the reports do not tell about single examples.
    """
    before, after = found.before.get(HELD_OUT_TASK), found.after.get(HELD_OUT_TASK)
    if before is None or after is None or after.outcomes is None:
        return None
    position = dict(zip(after.outcomes.keys, after.outcomes.positions, strict=True))
    return [(change, position[change.key]) for change in compare(HELD_OUT_TASK, before, after).changes]


def gain_between(found: FinetuneResult) -> tuple[float, float] | None:
    """Return the best alpha between the ends by the sum of all headline metrics, and its gain over the better end.

    None if no alpha between the ends, or not both ends, were measured.
    """
    sums = {alpha: sum(headline(report)[1] for report in reports.values()) for alpha, reports in found.curve}
    ends = [sums.pop(end) for end in (0.0, 1.0) if end in sums]
    if not sums or len(ends) < 2:
        return None
    best, alpha = max((total, alpha) for alpha, total in sums.items())
    return alpha, best - max(ends)


def losses(before: Reports, after: Reports, most: float) -> list[Loss]:
    """Return the tasks that lost more than the share `most` of their lead over chance.

    A task does not count if chance was within its interval before, or if it fell by less than half that interval.
    """
    found = []
    for task, report in before.items():
        metric, old = headline(report)
        new = headline(after[task])[1]
        chance = report.scores.chance.get(metric, 0.0)
        low, high = report.scores.confidence.get(metric, (old, old))
        gained = old - chance
        if low > chance and old - new > (high - low) / 2 and gained > 0 and (old - new) / gained > most:
            found.append(Loss(task, metric, old, new, (old - new) / gained))
    return found


def best_alpha(curve: Sequence[tuple[float, Reports]]) -> float:
    """Return the alpha with the highest mean of what was learned and what was kept; the smallest of equal ones.

    What was learned is the mean of the tasks on the classes of the data, what was kept that of all other tasks. If
    there are tasks of one kind only, they decide.
    """
    return max(curve, key=lambda point: (_balance(point[1]), -point[0]))[0]


def _balance(reports: Reports) -> float:
    kinds: dict[bool, list[float]] = {}
    for task, report in reports.items():
        kinds.setdefault(task.startswith(OWN), []).append(headline(report)[1])
    means = [math.fsum(values) / len(values) for values in kinds.values()]
    return math.fsum(means) / len(means)
