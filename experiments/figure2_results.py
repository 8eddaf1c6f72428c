"""What `figure2.py` found: how many times fewer images one variant needs than another, with intervals over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from diptych.evaluation.robustness.student_t import margin

Job = Mapping[str, Any]
Curve = Sequence[tuple[float, float]]  # (images, accuracy), by images

# The variants, as tables and plots have them.
ARMS = ("language model", "bag of words, predicted", "bag of words, contrastive", "CLIP")
# Pairs of the paper's claim: the second arm needs so many times fewer pictures than the first.
CLAIMS = (
    ("language model", "bag of words, predicted", "3"),
    ("bag of words, predicted", "bag of words, contrastive", "4"),
    ("language model", "bag of words, contrastive", "12"),
    ("bag of words, contrastive", "CLIP", "-"),
)
# The paper's order, fewest pictures first; where it has CLIP among them it does not say.
PAPER = ("bag of words, contrastive", "bag of words, predicted", "language model")
# Fixed before the runs: the accuracy at which arms are compared, as the share of the way from chance to the accuracy
# that the slowest arm ends with. So every arm reaches it, and nobody chose it by its result.
SHARE = 0.8
# An arm takes part if every seed of it is above guessing by so many standard errors of guessing.
ERRORS = 4


def images_to_reach(curve: Curve, accuracy: float) -> float:
    """Return after how many images a curve first has an accuracy, interpolated logarithmically; inf if never."""
    before: tuple[float, float] | None = None
    for images, found in curve:
        if found >= accuracy:
            if before is None or found == before[1]:
                return images
            share = (accuracy - before[1]) / (found - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(images) - math.log(before[0])))
        before = images, found
    return math.inf


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """Return how many times more images the slow arm needs, with Student's 95 % interval over seeds, in logarithms."""
    logs = [math.log(a / b) for a, b in zip(slow, fast, strict=True)]
    middle, half = fmean(logs), margin(logs)
    return math.exp(middle), math.exp(middle - half), math.exp(min(middle + half, 700))


def curve_of(job: Job, metric: str = "top1") -> Curve:
    return [(point["images"], point.get(metric, point["top1"])) for point in job["curve"]]


def arms_of(jobs: Sequence[Job], condition: str) -> dict[str, list[Job]]:
    """Return the jobs of a condition by arm, each by seed."""
    found: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job["seed"]):
        if job["condition"] == condition:
            found.setdefault(job["arm"], []).append(job)
    return {arm: found[arm] for arm in ARMS if arm in found}


def best(job: Job) -> float:
    return max(accuracy for _, accuracy in curve_of(job))


def learned(arms: Mapping[str, Sequence[Job]]) -> list[str]:
    """Return the arms whose every seed was once significantly above guessing."""

    def above(job: Job) -> bool:
        chance = job["chance"]
        return bool(best(job) > chance + ERRORS * math.sqrt(chance * (1 - chance) / job["tested"]))

    return [arm for arm, jobs in arms.items() if all(map(above, jobs))]


def compared_at(arms: Mapping[str, Sequence[Job]]) -> float:
    """Return the accuracy at which the arms of a condition are compared; inf if none has learned anything."""
    chance = next(iter(arms.values()))[0]["chance"]
    slowest = min((best(job) for arm in learned(arms) for job in arms[arm]), default=math.inf)
    return float(chance + SHARE * (slowest - chance))


def reached(arms: Mapping[str, Sequence[Job]]) -> dict[str, list[float]]:
    """Return the images after which each seed of each arm has the accuracy at which they are compared, or inf."""
    level, able = compared_at(arms), learned(arms)
    return {
        arm: [images_to_reach(curve_of(job), level) if arm in able else math.inf for job in jobs]
        for arm, jobs in arms.items()
    }


@dataclass(frozen=True)
class Comparison:
    """How many times more the slow arm needs than the fast one, and what the paper found.

    pictures, work: the ratio and its interval. never: the slow arm did not reach the accuracy, and all of its images
    stand in.
    """

    slow: str
    fast: str
    paper: str
    pictures: tuple[float, float, float]
    work: tuple[float, float, float]
    never: bool

    def shown(self, found: tuple[float, float, float]) -> str:
        middle, low, high = found
        return f"more than {low:.1f}" if self.never else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def comparisons(arms: Mapping[str, Sequence[Job]]) -> list[Comparison]:
    """Return the pairs of the paper's claim whose fast arm reached the accuracy."""
    needed = reached(arms)
    found = []
    for slow, fast, paper in CLAIMS:
        if slow not in arms or fast not in arms or math.inf in needed[fast]:
            continue
        never = math.inf in needed[slow]
        pictures = [[curve_of(job)[-1][0] for job in arms[slow]] if never else needed[slow], needed[fast]]
        work = [
            [images * job["flops"] for images, job in zip(each, arms[arm], strict=True)]
            for arm, each in zip((slow, fast), pictures, strict=True)
        ]
        found.append(Comparison(slow, fast, paper, ratio(*pictures), ratio(*work), never))
    return found
